"""What is wrong with a run is said in the contract's words, by the command's exit code too."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from contract.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    HashMismatchError,
    InputError,
    LabelsMissingError,
    UnknownModelError,
)
from export.candidate import find_candidates
from export.command import main
from training.artifact import Artifact
from training.spec import ModelSpec


@pytest.fixture
def run(toy_model: ModuleType, toy_spec: ModelSpec, tmp_path: Path) -> Artifact:
    return toy_model.train_toy(toy_spec, tmp_path)


def _fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main([*words, "--artifacts", str(tmp_path), "--skip-wire", "--quiet"])
    return code, capsys.readouterr().err


def test_unknown_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = _fails(tmp_path, capsys, "no_such_model")
    assert code == UnknownModelError.exit_code
    assert "unknown model 'no_such_model': expected one of" in message


def test_unknown_preset(
    toy_spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = _fails(tmp_path, capsys, "toy_level", "--preset", "other")
    assert code == InputError.exit_code
    assert "expected one of default, got other" in message


def test_nothing_trained(
    toy_spec: ModelSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = _fails(tmp_path, capsys, "toy_level")
    assert code == ArtifactMissingError.exit_code
    assert "python -m training train toy_level" in message


def test_changed_weights(run: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run.path / "level.pt").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(HashMismatchError):
        find_candidates((_spec(),), root=tmp_path)
    code, message = _fails(tmp_path, capsys, "toy_level")
    assert code == HashMismatchError.exit_code
    assert "level.pt" in message
    assert "expected sha256" in message


def test_missing_weights(run: Artifact, tmp_path: Path) -> None:
    (run.path / "level.pt").unlink()
    with pytest.raises(ArtifactCorruptError, match=r"level\.pt.*no such file"):
        find_candidates((_spec(),), root=tmp_path)


def test_corrupt_manifest(
    run: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.path / "manifest.json"
    path.write_text(path.read_text()[:100])
    code, message = _fails(tmp_path, capsys, "toy_level")
    assert code == ArtifactCorruptError.exit_code
    assert "manifest cannot be read" in message


def test_labels_without_thresholds(
    run: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["labels"] = ["low", "high"]
    manifest["thresholds"] = {"low": 0.5}
    path.write_text(json.dumps(manifest))
    with pytest.raises(LabelsMissingError, match="none for high"):
        find_candidates((_spec(),), root=tmp_path)
    code, _ = _fails(tmp_path, capsys, "toy_level")
    assert code == LabelsMissingError.exit_code


def test_other_labels_than_the_model(toy_model: ModuleType, tmp_path: Path) -> None:
    from training.registry import get_spec

    artifact = toy_model.make_tiny_log_anomaly(tmp_path)
    spec = get_spec("log_anomaly")
    assert find_candidates((spec,), root=tmp_path)
    path = artifact.path / "manifest.json"
    for labels in ([], ["anomaly", "normal"]):
        manifest = json.loads(path.read_text())
        manifest["labels"] = labels
        path.write_text(json.dumps(manifest))
        with pytest.raises(LabelsMissingError, match="expected normal, anomaly, got"):
            find_candidates((spec,), root=tmp_path)


def test_skip_wire_proves_but_does_not_publish(
    run: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    words = ["toy_level", "--skip-wire", "--quiet", "--repository", str(repository)]
    words += ["--report-folder", str(tmp_path / "reports")]
    assert main([*words, "--artifacts", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "torchscript" in printed
    assert "not published" in printed
    assert not repository.exists()
    folder = run.path / "export" / "cpu"
    assert {path.name for path in folder.iterdir()} == {
        "golden_answers.npz",
        "model.onnx",
        "model.pt",
        "parity_report.html",
        "parity_report.json",
        "parity_junit.xml",
    }


def _spec() -> ModelSpec:
    from training.registry import get_spec

    return get_spec("toy_level")
