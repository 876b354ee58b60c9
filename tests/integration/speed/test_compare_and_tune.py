"""compare and tune on a real tritonserver, with a classifier of two tiny layers."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from contract.errors import ServerAnswerError
from export.candidate import Candidate
from export.gate import export_files
from export.target import TARGETS
from export.tuning import Tuning
from export.version_folder import stage
from loadtest.served import ServedModel, served_models
from loadtest.speed.bert_base import BertBasePlaces
from loadtest.speed.compare import compare_question
from loadtest.speed.compare_table import compare_report
from loadtest.speed.grpc_load import GrpcLoad
from loadtest.speed.infer_message import infer_message
from loadtest.speed.presage_server import UNCACHED, presage_server
from loadtest.speed.questions import CompareSettings, questions
from loadtest.speed.tuning import Knob, Trial, TuneSettings, measurer, search
from training.registry import get_spec


@pytest.fixture(scope="module")
def published(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ and repository/ of one tiny log classifier."""
    root = tmp_path_factory.mktemp("speed")
    artifact = toy_model.make_tiny_log_anomaly(root / "artifacts", 0)
    ascent = export_files(Candidate(get_spec("log_anomaly"), artifact))
    stage(ascent.candidate, root / "repository")
    (root / "logs").mkdir()
    lines = [f"generating core.{number}" for number in range(40)]
    lines += ["instruction cache parity error corrected", "session opened for user root"] * 3
    (root / "logs" / "one.log").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def model(published: Path) -> ServedModel:
    (one,) = served_models(published / "repository", published / "artifacts")
    return one


def line(text: bytes) -> dict[str, np.ndarray]:
    column = np.empty((1, 1), dtype=object)
    column[0, 0] = text
    return {"text": column}


def test_every_side_answers_and_the_twin_forgets(
    published: Path, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, target in list(TARGETS.items()):
        elsewhere = dataclasses.replace(target, repository=published / "nothing")
        monkeypatch.setitem(TARGETS, name, elsewhere)
    settings = CompareSettings(
        published / "repository",
        published / "artifacts",
        published / "logs",
        BertBasePlaces(published / "nothing"),
        rounds=2,
        seconds=0.3,
        compiled=False,
    )
    ((question, served),) = questions(settings)
    one = compare_question(question, served, settings)
    measured = {(name, caches): rounds for name, caches, rounds in one.sides}
    forgetful = measured["Presage cpu", "off"].split
    assert forgetful["cache"] == 0 < forgetful["classifier"]
    assert measured["Presage cpu", "on"].split["cache"] > 0
    assert measured["Presage cpu", "on, all seen"].split["classifier"] == 0
    assert all(len(rounds.rates) == 2 and min(rounds.rates) > 0 for rounds in measured.values())
    assert all(min(rounds.cpu_seconds.values()) >= 0 for rounds in measured.values())
    assert "0 flipped" in one.checked["Presage cpu (log_anomaly)"]
    assert "not published" in one.absent["Presage cpu-openvino"]
    report = compare_report([one], [], settings)
    assert "log_anomaly_classifier" in report
    assert "not asked for" in report


def test_load_sees_errors_and_large_requests(published: Path, model: ServedModel) -> None:
    with presage_server(published / "repository", (model.name,)) as server:
        long = infer_message(model.name, line(b"error " * 60_000), ("score",))
        # Longer than HTTP/2's windows at their start: sent in pieces, as the server has room.
        assert len(long) > 3 * 65_535
        taken, rate = GrpcLoad(server.grpc_address, itertools.repeat(long), 3).run(0.3)
        assert len(taken) >= 3
        assert rate > 0
        before = server.statistics(model.name + UNCACHED)
        message = infer_message(model.name + UNCACHED, line(b"disk failed"), ("label", "score"))
        load = GrpcLoad(server.grpc_address, itertools.repeat(message), 8)
        taken, _ = load.run(0.3)
        done = server.statistics(model.name + UNCACHED) - before
        assert done.requests == len(taken) == load.answered
        unknown = infer_message("nobody", line(b"x"), ("score",))
        with pytest.raises(ServerAnswerError, match="nobody"):
            GrpcLoad(server.grpc_address, itertools.repeat(unknown), 2).run(0.2)


def test_tune_serves_what_it_tries(published: Path, model: ServedModel) -> None:
    settings = TuneSettings(
        published / "repository",
        published / "artifacts",
        concurrency=8,
        rounds=1,
        seconds=0.3,
    )
    steps: list[None] = []
    measure = measurer(model, settings, lambda: steps.append(None))
    knob = Knob("log_anomaly", "chunk_tokens", (64,))
    best, trials = search([knob], measure, p99_seconds=5.0)
    assert len(steps) == 1
    assert len(trials) == 2
    assert all(trial.rate > 0 and not trial.refused for trial in trials)
    assert best.settings in [trial.settings for trial in trials]
    impossible = Trial((("log_anomaly", Tuning(threads=2)),))
    measure([impossible])
    assert "threads" in impossible.refused
