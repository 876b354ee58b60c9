"""Corrections in, a new run out; corrections that cannot be right are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from contract.errors import DataFileError
from training.artifact import Artifact
from training.command import main
from training.data.row_report import RowReport
from training.log_anomaly.corrections import (
    CORRECTIONS_SHARE,
    UNLABELLED_SHARE,
    correcting_sampler,
    read_corrections,
    read_unlabelled,
)
from training.log_anomaly.systems import FAULT, NO_FAULT, LogRow
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import TextExample

FEW = [
    *(f"anomaly\tunit {word} failed failed failed" for word in ("alpha", "beta", "gamma")),
    *(f"正常\tunit {word} started started started" for word in ("alpha", "beta", "gamma")),
]


@pytest.fixture(scope="module")
def artifacts(tiny_log_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    command = ["train", "log_anomaly", "--artifacts", str(folder), "--quiet", "--device", "cpu"]
    command += ["--encoder", str(tiny_log_encoder), "--epochs", "1", "--draws", "640"]
    patch = pytest.MonkeyPatch()
    patch.delenv("PRESAGE_DATA", raising=False)
    patch.chdir(folder)
    assert main([*command, "--max-tokens", "32"]) == 0
    patch.undo()
    return folder


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PRESAGE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(artifacts: Path) -> MaskedTokenizer:
    run = Artifact.latest("log_anomaly", "line", artifacts)
    return MaskedTokenizer(run.path / "tokenizer.json", max_tokens=32)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def adapt(artifacts: Path, labels: Path, *more: str) -> int:
    command = ["adapt", "log_anomaly", "--labels", str(labels), "--artifacts", str(artifacts)]
    return main([*command, "--quiet", "--device", "cpu", *more])


def test_a_new_run_goes_on_from_the_newest(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = Artifact.latest("log_anomaly", "line", artifacts)
    command = ["--steps", "200", "--learning-rate", "0.02"]
    assert adapt(artifacts, write(tmp_path / "few.tsv", FEW), *command) == 0
    run = Artifact.latest("log_anomaly", "line", artifacts)
    assert run.manifest.run_id != parent.manifest.run_id
    assert run.manifest.settings["adapted_from"] == parent.manifest.run_id
    assert run.manifest.settings["corrections"] == 6
    assert run.manifest.graph == parent.manifest.graph
    assert run.manifest.data[-1].path == "few.tsv"
    assert run.golden_questions() == parent.golden_questions()
    said = capsys.readouterr().out
    assert "3 anomaly, 3 normal" in said
    assert "now; F1" in said
    # What was corrected is right now: the tiny network has learnt it.
    assert "100% now" in said


def test_contradicting_lines_are_named_and_nothing_is_written(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((artifacts / "log_anomaly").iterdir())
    few = write(tmp_path / "few.tsv", [*FEW, "anomaly\tdisk 7 is full", "normal\tdisk 9 is full"])
    assert adapt(artifacts, few) == DataFileError.exit_code
    error = capsys.readouterr().err
    assert "disk 7 is full" in error
    assert "disk 9 is full" in error
    assert "few.tsv" in error
    assert sorted((artifacts / "log_anomaly").iterdir()) == before


def test_wrong_labels_repeats_and_one_class_are_said(
    tmp_path: Path, tokenizer: MaskedTokenizer
) -> None:
    lines = ["anomaly\tdisk 7 lost", "异常\tdisk 8 lost", "broken\tdisk lost", "anomaly\t ", "x"]
    few = write(tmp_path / "few.tsv", lines)
    rows, remarks = read_corrections(few, RowReport(), tokenizer)
    assert [row.text for row in rows] == ["disk 7 lost"]
    said = "; ".join(remarks)
    assert "1 repeats dropped" in said
    assert "unknown label 'broken'" in said
    assert f"{few}:4: empty text" in said
    assert "only one class: some normal lines" in said


def test_no_good_correction_is_an_error(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(artifacts, write(tmp_path / "few.tsv", ["what is this"])) != 0
    assert "few.tsv" in capsys.readouterr().err
    assert adapt(artifacts, tmp_path / "nowhere.tsv") != 0
    assert "nowhere.tsv" in capsys.readouterr().err


def test_a_model_without_corrections_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "metric_forecast"]) == 2
    assert "log_anomaly" in capsys.readouterr().err


def test_unlabelled_lines_leave_the_corrections_out(
    tmp_path: Path, tokenizer: MaskedTokenizer
) -> None:
    log = write(tmp_path / "app.log", ["disk 1 lost", "all well 3", "all well 4", "", "hello"])
    rows = read_unlabelled(log, [LogRow("disk 9 lost", FAULT, "few")], tokenizer)
    assert [row.text for row in rows] == ["all well 3", "hello"]
    assert {row.grades for row in rows} == {NO_FAULT}


def test_shares_of_what_is_drawn() -> None:
    corrections = [LogRow("bad", FAULT, "few"), *(LogRow("good", NO_FAULT, "few"),) * 9]
    unlabelled = [LogRow("other", NO_FAULT, "app")]
    learnt = TextExample("learnt", (1, 0, 0))
    sample = correcting_sampler(corrections, unlabelled, lambda _, count: [learnt] * count)
    drawn = sample(np.random.default_rng(0), 4000)

    def share(word: str) -> float:
        return sum(example.text.endswith(word) for example in drawn) / len(drawn)

    # Both classes alike, however many there are of each.
    assert share("bad") == pytest.approx(CORRECTIONS_SHARE / 2, abs=0.03)
    assert share("good") == pytest.approx(CORRECTIONS_SHARE / 2, abs=0.03)
    assert share("other") == pytest.approx(UNLABELLED_SHARE, abs=0.03)


def test_publish_hands_over_to_the_gate(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ships is the export's answer, and its exit code is this command's."""
    import training.adaptation

    asked: list[list[str]] = []

    class Refused:
        returncode = 7

    def refuse(command: list[str], check: bool) -> type[Refused]:
        asked.append(command)
        return Refused

    monkeypatch.setattr(training.adaptation, "subprocess", SimpleNamespace(run=refuse))
    few = write(tmp_path / "few.tsv", FEW)
    repository = ["--publish", "--repository", str(tmp_path / "repository")]
    assert adapt(artifacts, few, "--steps", "2", *repository) == 7
    assert asked[0][1:4] == ["-m", "export", "log_anomaly"]
    assert str(artifacts) in asked[0]
    assert json.dumps(asked[0]).count("repository") >= 2
