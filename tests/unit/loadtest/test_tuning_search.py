"""tune: what it chooses, what it never chooses, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.tuning import Tuning
from loadtest.speed.tuning import (
    Knob,
    Trial,
    TuneSettings,
    choose,
    merged,
    pareto,
    risky,
    search,
    tune_table,
    with_value,
)

WORDS = "words"


def trial(rate: float, p99: float, *, stall: bool = False, instances: int = 2) -> Trial:
    settings = ((WORDS, Tuning(instances=instances)),)
    sparse = [0.004] * 50 + ([0.5] if stall else [])
    return Trial(settings, [rate], [p99] * 10, sparse)


def test_the_fastest_within_p99_is_chosen() -> None:
    base, faster, late = trial(100, 0.01), trial(150, 0.015, instances=3), trial(400, 0.03)
    assert choose(base, [faster, late], 0.02) is faster


def test_what_stalls_is_never_chosen() -> None:
    base, stalling = trial(100, 0.01), trial(500, 0.01, stall=True, instances=1)
    assert stalling.stalls == 1
    assert choose(base, [stalling], 0.02) is base
    assert stalling not in pareto([base, stalling])


def test_a_slow_model_is_not_taken_for_a_stalling_one() -> None:
    slow = Trial((), [2.0], [0.5], [0.45, 0.5, 0.55])
    assert slow.stalls == 0


def test_noise_changes_nothing() -> None:
    base = trial(100, 0.01)
    assert choose(base, [trial(102, 0.01, instances=3)], 0.02) is base


def test_without_any_within_p99_the_lowest_stands() -> None:
    base, nearer = trial(100, 0.09), trial(50, 0.05, instances=3)
    assert choose(base, [nearer], 0.02) is nearer


def test_refused_is_never_chosen() -> None:
    base, refused = trial(100, 0.01), Trial((), refused="does not load")
    assert choose(base, [refused], 0.02) is base
    assert "does not load" in tune_table(base, [base, refused], WORDS, _settings())


def test_pareto_leaves_what_is_beaten_in_both() -> None:
    fast, quick, beaten = trial(200, 0.02), trial(100, 0.01), trial(90, 0.015)
    assert pareto([beaten, quick, fast]) == [fast, quick]


def test_search_goes_on_from_what_was_best() -> None:
    """Rates are known beforehand: 3 instances, then 512 tokens, are worth most."""

    def measure(trials: Sequence[Trial]) -> None:
        for one in trials:
            tuning = dict(one.settings).get(WORDS, Tuning())
            rate = 100 * (tuning.instances or 2) + (tuning.chunk_tokens or 256)
            one.rates, one.seconds = [rate], [0.01]
            # One instance is fastest here, and stalls.
            if tuning.instances == 1:
                one.rates = [10_000.0]
                one.sparse_seconds = [0.004] * 50 + [0.5]

    knobs = [Knob(WORDS, "instances", (1, 2, 3)), Knob(WORDS, "chunk_tokens", (128, 512))]
    best, trials = search(knobs, measure, 0.02)
    assert dict(best.settings)[WORDS] == Tuning(instances=3, chunk_tokens=512)
    assert len(trials) == 4 + 2
    table = tune_table(best, trials, WORDS, _settings())
    assert (
        "| words: instances 3, chunk_tokens 512 | 812 | 10.0 | 10.0 | 0 | chosen, Pareto |" in table
    )
    assert "| words: instances 1 | 10,000 | 10.0 | 10.0 | 1 |  |" in table


def test_few_instances_or_a_delay_are_watched_longer() -> None:
    base = ((WORDS, Tuning(instances=3)),)
    assert not risky(base)
    assert risky(with_value(base, Knob(WORDS, "instances", ()), 1))
    assert risky(with_value(base, Knob(WORDS, "instances", ()), 2))
    assert risky(with_value(base, Knob(WORDS, "max_queue_delay_microseconds", ()), 500))
    assert not risky(with_value(base, Knob(WORDS, "max_queue_delay_microseconds", ()), 0))


def test_other_models_and_targets_keep_their_tuning() -> None:
    known = {"gpu": {"x": Tuning(threads=2)}, "cpu": {WORDS: Tuning(threads=2), "y": Tuning()}}
    found = merged(known, "cpu", trial(1, 1, instances=4))
    assert found["cpu"][WORDS] == Tuning(instances=4, threads=2)
    assert found["gpu"] == known["gpu"]
    assert "y" in found["cpu"]


def _settings() -> TuneSettings:
    return TuneSettings(Path("model_repository"), Path("artifacts"))
