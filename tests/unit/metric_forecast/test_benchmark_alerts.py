"""The alerts benchmark: counts, episodes and lead times by hand, its tables on tiny data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ArtifactMissingError, DataFileError, InputError
from training.artifact import Artifact
from training.metric_forecast.benchmark.alert_table import figures
from training.metric_forecast.benchmark.alerts import add_arguments, run
from training.metric_forecast.benchmark.methods import LAST, SEASONAL, line_name, simple_methods
from training.metric_forecast.benchmark.replay import (
    DUAL,
    HIGH_YESTERDAY,
    MODEL,
    RULES,
    YESTERDAY,
    Tally,
    alert_origins,
    episodes,
    excursion_start,
    pooled,
    replay,
    tally,
    threshold_of,
)
from training.metric_forecast.data import Series

NAN = float("nan")


def a_series(values, step_seconds: int = 3600, family: str = "asd") -> Series:
    return Series("one", family, "one", step_seconds, np.asarray(values, np.float32), "x.csv")


def says(*columns):
    """A method that gives one forecast (or its quantiles) whatever it is asked."""

    def answer(series, origins, aheads):
        quantiles = np.array(columns, dtype=float)
        return np.broadcast_to(quantiles, (len(origins), len(aheads), len(columns))).copy()

    return answer


def knows(shift: float = 0.0):
    """A method that looks the truth up."""

    def answer(series, origins, aheads):
        at = [[origin + ahead - 1 for ahead in aheads] for origin in origins]
        return series.values[np.array(at)].astype(float)[..., None] + shift

    return answer


# Judging one rule --------------------------------------------------------------------------------


def test_threshold_is_of_the_first_80_percent():
    values = np.concatenate([np.arange(80), np.full(20, 1e6)])
    assert threshold_of(a_series(values)) == pytest.approx(0.95 * 79)
    values[10:20] = np.nan
    kept = np.concatenate([np.arange(10), np.arange(20, 80)])
    assert threshold_of(a_series(values)) == pytest.approx(np.quantile(kept, 0.95))
    assert threshold_of(a_series([NAN] * 80 + [1.0] * 20)) is None


def test_origins_every_15_minutes():
    values = np.zeros(1000)
    # The last origin still has its truth: step 999 is 144 after the last known, 855.
    assert alert_origins(a_series(values, 300), 144, 0) == list(range(800, 857, 3))
    assert alert_origins(a_series(values, 3600), 12, 0) == list(range(800, 989))
    assert alert_origins(a_series(values, 600), 72, 0) == list(range(800, 929))
    assert alert_origins(a_series(values, 3600), 12, 3) == [800, 894, 988]
    assert alert_origins(a_series(values, 0), 144, 0) == list(range(800, 857, 3))
    assert alert_origins(a_series(values[:100], 300), 144, 0) == []


#         step: 0  1  2  3  4  5  6  7  8  9 10 11
VALUES = [0, 0, 0, 0, 0, 9, 9, 0, 0, 9, NAN, 0]


def judge(alerts: str, values=VALUES, step_seconds: int = 3600, lead: int = 3) -> Tally:
    """Origins 1, 2, …; the first one asks about step ``lead``."""
    marks = np.array([mark == "x" for mark in alerts])
    origins = range(1, len(alerts) + 1)
    return tally(a_series(values, step_seconds), 1.0, lead, origins, marks)


def test_counts_by_hand():
    # Asked about steps 3 … 11: 0 0 9 9 0 0 9 ? 0; an unknown truth is neither right nor wrong.
    found = judge(".xx.x.xxx")
    assert (found.hits, found.false, found.missed) == (2, 3, 1)
    assert found.precision == 2 / 5
    assert found.recall == 2 / 3
    assert found.f1 == pytest.approx(0.5)


def test_lead_time_runs_from_first_alert_to_the_excursion():
    # First alert at step 1 about step 4 (wrong), the next about 5: right, and there it begins.
    assert judge(".xx......").lead_hours == (4.0,)
    assert judge(".xx......", step_seconds=900).lead_hours == (1.0,)
    # The alert about step 6, made at step 3, foretells the excursion that begins with step 5.
    assert judge("...x.....").lead_hours == (2.0,)
    # Made at step 5 about step 8: wrong; at 6 about 9: right.
    assert judge(".....xx..").lead_hours == (4.0,)


def test_no_lead_time_where_the_excursion_is_under_way():
    values = [0, 9, 9, 9, 9, 9, 9, 0, 0]
    found = judge("..x...", values)
    assert (found.hits, found.episodes, found.lead_hours) == (1, 1, ())


def test_false_alarms_are_episodes_that_nothing_confirms():
    # Hourly: neighbours are an hour apart and merge, a pause of one origin does not.
    found = judge("xx.x...x.")
    assert (found.episodes, found.false_episodes) == (3, 1)
    # The episode at the end only asked about a missing value.
    assert judge(".......x.").false_episodes == 0
    assert judge(".......xx").false_episodes == 1


def test_episodes_merge_over_gaps_up_to_an_hour():
    quarter_hours = np.arange(12) * 900
    marks = np.array([mark == "x" for mark in "xx...x....x."])
    assert episodes(quarter_hours, marks) == [[0, 1, 5], [10]]
    marks[9] = True
    assert episodes(quarter_hours, marks) == [[0, 1, 5, 9, 10]]
    assert episodes(quarter_hours, np.zeros(12, bool)) == []
    assert episodes(np.array([0, 7200, 14400]), np.array([True, True, False])) == [[0, 1]]


def test_a_missing_value_ends_no_excursion():
    values = np.array([0, 9, NAN, 9, 0, NAN, 9.0])
    assert excursion_start(values, 1.0, 3) == 1
    assert excursion_start(values, 1.0, 6) == 6
    assert excursion_start(values[1:], 1.0, 2) == 0


def test_nothing_to_divide_by():
    quiet = judge(".........", np.zeros(12))
    assert np.isnan([quiet.precision, quiet.recall, quiet.f1, quiet.lead]).all()
    silent = judge(".........")
    assert np.isnan(silent.precision)
    assert (silent.recall, silent.f1) == (0, 0)


def test_pooled_counts_every_origin_the_same():
    one, other = Tally(1, 0, 0, 1, 0, (3.0,)), Tally(0, 3, 0, 2, 2, (5.0, 6.0))
    both = pooled([one, other])
    assert (both.precision, both.recall, both.lead) == (1 / 4, 1, 5)
    assert (both.episodes, both.false_episodes) == (3, 2)


# Rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "model", "yesterday", "expected"),
    [
        (2, 2, 0, {DUAL, MODEL, line_name("6h")}),
        (2, 0, 0, {line_name("6h")}),
        (0, 2, 0, {MODEL}),
        (NAN, 2, 0, {MODEL}),
        (0, 2, 2, {MODEL, SEASONAL, YESTERDAY, HIGH_YESTERDAY}),
        (0, 0, 2, {SEASONAL, HIGH_YESTERDAY}),
        (0, 1, 2, {SEASONAL, HIGH_YESTERDAY}),
        (0, -5, 2, {SEASONAL}),
    ],
)
def test_a_rule_with_two_witnesses_needs_both(line, model, yesterday, expected):
    forecasts = {
        LAST: [[0.0]],
        SEASONAL: [[yesterday]],
        MODEL: [[model - 3, model, model + 3]],
        **{line_name(span): [[0.0]] for span in ("1h", "24h")},
        line_name("6h"): [[line]],
    }
    arrays = {name: np.array(columns, dtype=float) for name, columns in forecasts.items()}
    assert {name for name, fires in RULES.items() if fires(arrays, 1.0)[0]} == expected


# Replaying ---------------------------------------------------------------------------------------


def saw(length: int = 1000) -> Series:
    """Hourly, 0 but for two hours of every 40."""
    return a_series(np.where(np.arange(length) % 40 < 2, 10.0, 0.0))


def test_replay_of_a_prophet_and_a_sceptic():
    methods = {**simple_methods(), line_name("6h"): says(99.0)}
    networks = {"prophet": knows(), "sceptic": says(-9.0, -8.0, -7.0)}
    one = replay([saw()], methods, networks, 12, 0)[0]
    # Steps 811 … 999 are asked about; 840 … 960 hold 4 excursions of 2 hours.
    assert (one.origins, one.events) == (189, 8)
    assert one.weeks == pytest.approx(189 / 168)
    prophet, sceptic = one.tallies["prophet"], one.tallies["sceptic"]
    assert prophet[MODEL] == Tally(8, 0, 0, 4, 0, (12.0,) * 4)
    assert prophet[DUAL] == prophet[MODEL]
    assert prophet[line_name("6h")].precision == pytest.approx(8 / 189)
    # One alert without end, begun 29 hours before the first excursion.
    assert prophet[line_name("6h")].lead_hours == (41.0,)
    assert (sceptic[MODEL].hits, sceptic[DUAL].hits, sceptic[DUAL].episodes) == (0, 0, 0)
    seeds = figures([one], MODEL)
    assert (seeds.precision, seeds.recall, seeds.f1) == (1, 0.5, 0.5)
    # Yesterday was above at 800, 840 … 960, and nothing ever comes a day later.
    assert figures([one], SEASONAL).false_alarms == pytest.approx(5 / (189 / 168))


def test_replay_leaves_out_what_has_no_truth_or_threshold():
    blind = saw().values.copy()
    blind[800:] = np.nan
    late = np.where(np.arange(1000) < 800, np.nan, 1.0)
    series = [a_series(blind), a_series(late), a_series([1.0, 2.0]), saw()]
    networks = {"seed 0": knows(), "seed 1": knows()}
    found = replay(series, simple_methods(), networks, 12, 0)
    assert len(found) == 1
    assert list(found[0].tallies) == ["seed 0", "seed 1"]


def test_thinned_origins_span_the_same_time():
    full, thin = (
        replay([saw()], simple_methods(), {"a": knows()}, 12, limit)[0] for limit in (0, 63)
    )
    assert thin.origins == 63
    assert thin.weeks == pytest.approx(full.weeks, rel=0.02)


# The command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, toy_model) -> Artifact:
    return toy_model.make_tiny_forecaster(tmp_path_factory.mktemp("alerts"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Daily waves: an app server, a machine that never moves, and CloudWatch."""
    folder = tmp_path_factory.mktemp("series")
    wave = 50 + 20 * np.sin(np.arange(600) / 24 * 2 * np.pi)
    wave += np.random.default_rng(1).normal(0, 1, 600)
    for name, values in {
        "metrics/asd/a.csv": wave,
        "metrics/smd/steady.csv": np.full(600, 7.0),
        "metrics/nab/data/realAWSCloudwatch/c.csv": wave * 2,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{1_600_002_000 + 3600 * i},{value:.3f}" for i, value in enumerate(values)]
        path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return folder


def arguments(root: Path, data: Path, *words: str) -> Namespace:
    parser = ArgumentParser()
    add_arguments(parser)
    return Namespace(**vars(parser.parse_args(words)), data=data, artifacts=root, quiet=True)


def cells(text: str, table: str, row: str) -> list[str]:
    part = text[text.index(f"| {table}") :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_tables_of_a_tiny_run(tiny, data):
    text = run(arguments(tiny.path.parents[1], data, "--preset", "custom_48_4"))
    for rule in RULES:
        precision, recall, f1, _, false_alarms = cells(text, "app servers: 1 series", rule)
        assert 0 <= float(recall) <= 1
        assert 0 <= float(f1) <= 1
        assert float(false_alarms) >= 0
        assert precision == "–" or 0 <= float(precision) <= 1
    # A wave's top is where it was yesterday, not where the last value is.
    assert float(cells(text, "app servers", SEASONAL)[2]) > float(
        cells(text, "app servers", LAST)[2]
    )
    # Nothing ever happens to the steady one, and nobody claims it.
    assert cells(text, "machines: 1 series, 0 events", SEASONAL) == ["–", "–", "–", "–", "0.00"]
    assert text.index("| app servers") < text.index("| machines") < text.index("| CloudWatch")
    assert cells(text, "targets", DUAL)[0] == "app servers"
    assert tiny.manifest.run_id in text
    assert "learnt from: the targets ask for unseen ones" in text


def test_hold_out_and_origins(tiny, data):
    words = ("--run-folder", str(tiny.path), "--origins", "20", "--hold-out")
    text = run(arguments(tiny.path, data, *words, "nab/realAWSCloudwatch"))
    assert "| app servers" not in text
    assert "at 20 origins" in text
    with pytest.raises(DataFileError, match="no such system"):
        run(arguments(tiny.path, data, *words, "asd/nobody"))


def test_train_seeds_judges_runs_that_never_saw_them(data, tmp_path):
    words = ["--preset", "next", "--origins", "20", "--hold-out", "nab/realAWSCloudwatch"]
    flags = "--epochs 0.02 --seq-len 24 --horizon 4 --origins 1"
    words += ["--train-flags", flags, "--train-seeds", "0,1"]
    text = run(arguments(tmp_path, data, *words))
    assert "mean of 2 seeds" in text
    assert "never learnt from" in text
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tiny, data, tmp_path):
    with pytest.raises(InputError, match="number of origins"):
        run(arguments(tmp_path, data, "--origins", "-1"))
    with pytest.raises(InputError, match="not both"):
        run(arguments(tmp_path, data, "--run-folder", str(tiny.path), "--train-seeds", "0"))
    with pytest.raises(ArtifactMissingError):
        run(arguments(tmp_path, data))
