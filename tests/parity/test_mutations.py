"""At least 20 kinds of broken exports, each refused with its cause named: ``caught N of N``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest

from contract.errors import PresageError
from export.candidate import Candidate
from export.gate import export_files
from export.judge import Ascent
from export.mutation.mutation import Mutation
from export.mutation.suite import CATALOGUE, Outcome, run_suite, table
from training.artifact import Artifact
from training.registry import get_spec

# A hundred exports are proven in one fixture: two minutes on two idle cores.
pytestmark = pytest.mark.timeout(900)
MAKERS = {
    "log_anomaly": "make_tiny_log_anomaly",
    "train_failure_rca": "make_tiny_rca",
    "metric_forecast": "make_tiny_forecaster",
}


@pytest.fixture(scope="module")
def ascents(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ascent]:
    """One exported tiny run of each model."""
    exported = {}
    for model, maker in MAKERS.items():
        artifact: Artifact = getattr(toy_model, maker)(tmp_path_factory.mktemp(model))
        exported[model] = export_files(Candidate(get_spec(model), artifact))
    return exported


@pytest.fixture(scope="module")
def outcomes(ascents: dict[str, Ascent]) -> list[Outcome]:
    return [outcome for ascent in ascents.values() for outcome in run_suite(ascent)]


def test_every_broken_export_is_caught(outcomes: list[Outcome]) -> None:
    print(table(outcomes))
    missed = [one for one in outcomes if not one.caught]
    assert not missed, table(missed)
    assert table(outcomes).endswith(f"caught {len(outcomes)} of {len(outcomes)}")
    kinds = {one.mutation for one in outcomes}
    assert len(kinds) >= 20
    # Each entry of the catalogue was tried on some model.
    assert {mutation.name for mutation in CATALOGUE} <= kinds


def test_a_mutation_that_changes_nothing_is_not_caught(ascents: dict[str, Ascent]) -> None:
    harmless = Mutation("nothing at all", "any", lambda staged: None, "whatever")
    (outcome, _) = run_suite(ascents["log_anomaly"], [harmless])
    assert outcome.refusal is None
    assert not outcome.caught
    assert "NOT CAUGHT" in table([outcome])
    assert table([outcome]).endswith("caught 0 of 1")


def test_a_refusal_that_does_not_name_the_cause_is_not_enough(ascents: dict[str, Ascent]) -> None:
    truncation = next(one for one in CATALOGUE if one.name == "model file truncated")
    vague = dataclasses.replace(truncation, cause="the moon is full")
    (outcome, _) = run_suite(ascents["log_anomaly"], [vague])
    assert outcome.refusal is not None
    assert not outcome.caught


def test_a_broken_start_proves_nothing(ascents: dict[str, Ascent], tmp_path: Path) -> None:
    ascent = ascents["metric_forecast"]
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in ascent.candidate.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[:-100])
    candidate = dataclasses.replace(ascent.candidate, folder=folder)
    broken = dataclasses.replace(ascent, candidate=candidate)
    with pytest.raises(PresageError, match="the unbroken export is refused"):
        run_suite(broken, [])
