"""A fourth model is one folder under ``training``: trained, proven, published and served as is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from embedded_triton.server import EmbeddedServer, ServerSettings

SOURCES = ("contract", "training", "export", "embedded_triton", "clients", "loadtest")


@pytest.fixture
def copy(repository_root: Path, tmp_path: Path) -> Path:
    """The source tree with one more folder; nothing else is touched."""
    tree = tmp_path / "presage"
    leave_out = shutil.ignore_patterns("__pycache__", "[0-9]*", ".staging")
    for name in (*SOURCES, "model_repository"):
        if (repository_root / name).is_dir():
            shutil.copytree(repository_root / name, tree / name, ignore=leave_out)
    shutil.copyfile(repository_root / "pyproject.toml", tree / "pyproject.toml")
    (tree / ".venv-triton").symlink_to(repository_root / ".venv-triton")
    shutil.copytree(
        repository_root / "tests/fixtures/toy_level",
        tree / "training/toy_level",
        ignore=leave_out,
    )
    return tree


def _run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # `python -m` puts the working directory first: the copy, not the installed tree, is imported.
    environment = {key: value for key, value in os.environ.items() if key != "PRESAGE_DATA"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=tree,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _succeed(tree: Path, *words: str) -> str:
    done = _run(tree, *words)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_one_folder_is_enough(copy: Path) -> None:
    assert "toy_level" in _succeed(copy, "training", "list")
    drifted = _run(copy, "export", "config", "--check")
    assert drifted.returncode == 7
    assert "toy_level" in drifted.stdout
    _succeed(copy, "export", "config", "--write")
    _succeed(copy, "export", "config", "--check")

    _succeed(copy, "training", "train", "toy_level", "--quiet")
    output = _succeed(copy, "export", "toy_level", "--quiet")
    assert "published model_repository/toy_level/1" in output
    version = copy / "model_repository/toy_level/1"
    report = json.loads((version / "parity_report.json").read_text())
    assert report["passed"] is True
    assert [rung["rung"] for rung in report["rungs"]] == [
        *("onnxruntime", "torchscript", "grpc", "http", "concurrent")
    ]
    junit = next(copy.glob("artifacts/toy_level/*/export/cpu/parity_junit.xml")).read_text()
    assert 'failures="0"' in junit

    settings = ServerSettings(
        copy / "model_repository",
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        venv=copy / ".venv-triton",
        run_folder=copy / "build/server",
    )
    values = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    with EmbeddedServer(settings) as server:
        client = triton.InferenceServerClient(server.grpc_url)
        tensor = triton.InferInput("values", values.shape, "FP32")
        tensor.set_data_from_numpy(values)
        answer = client.infer("toy_level", [tensor])
        served = float(answer.as_numpy("level")[0, 0])
        client.close()
        loaded = _succeed(
            copy,
            *("loadtest", "run", "--seconds", "2", "--quiet"),
            *("--url", f"grpc://{server.grpc_url}", "--http-url", f"http://{server.http_url}"),
        )
        assert "toy_level" in loaded
        assert "every answer was held against eager PyTorch's" in loaded
        _verify_against(copy, f"{server.grpc_url},{server.http_url}")
    said = _succeed(
        copy, "training", "predict", "toy_level", "--values", *(str(value) for value in values[0])
    )
    assert served == pytest.approx(json.loads(said)["level"], abs=1e-5)


def _verify_against(copy: Path, url: str) -> None:
    """A running server: the whole ladder with the run, the golden answers without it."""
    place = "model_repository/toy_level/1"
    words = ("export", "verify", place, "--quiet", "--url", url)
    climbed = _succeed(copy, *words)
    for rung in ("onnxruntime", "grpc", "http", "concurrent"):
        assert rung in climbed
    asked = _succeed(copy, *words, "--artifacts", "nowhere")
    assert "concurrent" not in asked
    assert f"{place} is what was proven" in asked

    # Golden answers of another network: the server is asked, and does not give them.
    golden = copy / place / "golden_answers.npz"
    with np.load(golden) as arrays:
        changed = {name: array.copy() for name, array in arrays.items()}
    (level,) = [name for name in changed if name.endswith("level")]
    changed[level] += 0.5
    kept = golden.read_bytes()
    np.savez(golden, **changed)
    refused = _run(copy, *words, "--artifacts", "nowhere")
    golden.write_bytes(kept)
    assert refused.returncode != 0
    assert "does not answer as proven" in refused.stderr
    alone = _run(copy, *words[:4], "--artifacts", "nowhere")
    assert alone.returncode != 0
    assert "--url" in alone.stderr


def test_versions_count_on_and_verify_sees_a_changed_file(copy: Path) -> None:
    _succeed(copy, "training", "train", "toy_level", "--quiet")
    _succeed(copy, "export", "toy_level", "--quiet")
    output = _succeed(copy, "export", "toy_level", "--quiet")
    assert "published model_repository/toy_level/2" in output
    _succeed(copy, "export", "verify", "model_repository/toy_level/2", "--quiet", "--skip-wire")

    with (copy / "model_repository/toy_level/2/model.onnx").open("ab") as file:
        file.write(b"\0")
    verified = _run(copy, "export", "verify", "toy_level", "--quiet", "--skip-wire")
    assert verified.returncode == 4
    assert "model.onnx is not the one that was proven" in verified.stderr
    assert "Traceback" not in verified.stderr
