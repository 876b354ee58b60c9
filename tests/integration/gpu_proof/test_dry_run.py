"""The GPU proof's steps on the CPU: tiny networks, every side there is, a real tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.gpu_proof.machine import inspect_machine
from loadtest.gpu_proof.report import as_markdown
from loadtest.gpu_proof.run import TRITON_ONNX, TRITON_TORCHSCRIPT, ProofSettings, prove_on
from loadtest.gpu_proof.sides import CUDA_GRAPH, EAGER, ONNX, TORCHSCRIPT
from loadtest.gpu_proof.subjects import forecaster, random_classifier, text_subject

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(inspect_machine().has_gpu, reason="the dry run is for a CPU"),
]


def test_every_side_is_measured_or_says_why_not(repository_root: Path, tmp_path: Path) -> None:
    classifier = random_classifier((32, 2, 2))
    subjects = [
        text_subject("tiny", "random", classifier, "tiny_classifier", (1, 2), (8,)),
        forecaster(tmp_path / "no_runs", (1, 64)),
    ]
    settings = ProofSettings(
        artifacts=tmp_path / "no_runs",
        folder=tmp_path / "proof",
        venv=repository_root / ".venv-triton",
        rounds=1,
        seconds=0.05,
        progress=False,
    )
    proof = prove_on(inspect_machine(), subjects, settings)
    for subject in subjects:
        measured = {row.side for row in proof.rows if row.subject == subject.name}
        wanted = {EAGER, TORCHSCRIPT, ONNX, TRITON_ONNX, TRITON_TORCHSCRIPT}
        assert measured >= wanted, proof.absent
        assert (subject.name, CUDA_GRAPH) in proof.absent
        served = {one.side for one in proof.together if one.subject == subject.name}
        assert served == {EAGER, TRITON_ONNX, TRITON_TORCHSCRIPT}
    assert all(row.flipped == 0 and row.worst < 0.01 for row in proof.rows), proof.rows
    text = as_markdown(proof, "python -m loadtest gpu-proof --dry-run")
    assert "no figure here is a GPU's" in text
    assert "embedded server" in text
