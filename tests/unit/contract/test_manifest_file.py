"""Reading a manifest: every way a run folder can be broken is a typed error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    HashMismatchError,
    LabelsMissingError,
)
from contract.manifest import (
    MANIFEST_FILE,
    Graph,
    Manifest,
    Tensor,
    Tolerance,
    read_manifest,
    sha256_of,
    write_manifest,
)


def make_run(folder: Path, **changes: Any) -> Manifest:
    """A finished run with one weight file."""
    (folder / "weights.bin").write_bytes(b"weights")
    facts: dict[str, Any] = {
        "model": "toy",
        "preset": "default",
        "run_id": "default-1",
        "created_at": "2026-01-01T00:00:00+00:00",
        "git_commit": "unknown",
        "seed": 0,
        "device": "cpu",
        "packages": {},
        "graph": Graph(
            triton_name="toy",
            inputs=(Tensor(name="x", dtype="FP32", dims=(4,)),),
            outputs=(Tensor(name="y", dtype="FP32", dims=(1,)),),
            max_batch_size=8,
            max_length=4,
            parity_batches=(1,),
            parity_lengths=(4,),
            tolerances={"y": Tolerance(maximum=1e-5, percentile_99_9=1e-6)},
        ),
        "labels": ("a", "b"),
        "thresholds": {"a": 0.5, "b": 0.5},
        "files": {"weights.bin": sha256_of(folder / "weights.bin")},
    }
    manifest = Manifest(**(facts | changes))
    write_manifest(folder, manifest)
    return manifest


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_manifest(tmp_path_with_run(tmp_path)) == make_run(tmp_path)


def tmp_path_with_run(folder: Path) -> Path:
    make_run(folder)
    return folder


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissingError, match="train first"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', "\xff"])
def test_not_a_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(ArtifactCorruptError, match="manifest cannot be read"):
        read_manifest(tmp_path)


def test_a_changed_file(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"other")
    with pytest.raises(HashMismatchError, match=r"weights\.bin"):
        read_manifest(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ArtifactCorruptError, match="missing"):
        read_manifest(tmp_path)


def test_labels_without_thresholds(tmp_path: Path) -> None:
    make_run(tmp_path)
    path = tmp_path / MANIFEST_FILE
    facts = json.loads(path.read_text())
    del facts["thresholds"]["b"]
    path.write_text(json.dumps(facts))
    with pytest.raises(LabelsMissingError, match="none for b"):
        read_manifest(tmp_path)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path)
    path = tmp_path / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labls": ["a"]}))
    with pytest.raises(ArtifactCorruptError, match="labls"):
        read_manifest(tmp_path)
