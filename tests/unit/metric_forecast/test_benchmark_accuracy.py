"""The accuracy benchmark: its methods against hand-computed answers, its table on tiny data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import DataFileError, InputError
from training.artifact import Artifact
from training.data.source import DataSource
from training.metric_forecast.benchmark import ett
from training.metric_forecast.benchmark.accuracy import add_arguments, run
from training.metric_forecast.benchmark.baselines import (
    RidgeNLinear,
    auto_ets,
    last_values,
    load_auto_ets,
    predict_linear,
    seasonal_naive,
)
from training.metric_forecast.benchmark.measure import (
    Measured,
    figure,
    group_of,
    interval,
    measure,
    share_better,
)
from training.metric_forecast.benchmark.series import simple_methods, spread_over_groups
from training.metric_forecast.benchmark.table import markdown_table
from training.metric_forecast.data import Series

NAN = float("nan")


def a_series(values, family: str = "asd", step_seconds: int = 300, path: str = "x.csv") -> Series:
    return Series("one", family, "one", step_seconds, np.asarray(values, np.float32), path)


# Methods -------------------------------------------------------------------------------------


def test_predict_linear_carries_a_line_on_exactly():
    values = (7 + 0.5 * np.arange(100)).astype(np.float32)
    # One hour of 5-minute steps; the next step and 12 hours ahead.
    for ahead in (1, 144):
        found = predict_linear(values, [40, 90], ahead, 300, 3600)
        np.testing.assert_allclose(found, 7 + 0.5 * (np.array([40, 90]) + ahead - 1), rtol=1e-12)


def test_predict_linear_against_a_line_by_hand():
    # (time, value), time 0 = evaluation: (-3, 1), (-2, 3), (0, 2). Mean time -5/3, mean value 2,
    # slope = (4/3 * 1 + 1/3 * 1) * -1 … = ((-4/3)(-1) + (-1/3)(1) + (5/3)(0)) / (42/9) = 3/14.
    values = np.array([99, 1, 3, NAN, 2], np.float32)
    expected = 2 + 3 / 14 * (4 + 5 / 3)
    found = predict_linear(values, [5], 4, 300, 4 * 300)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_predict_linear_excludes_the_left_end_of_the_range():
    # 12 samples in an hour of 5-minute steps, not 13: the jump lies just outside.
    values = np.array([1000.0] + [5.0] * 12, np.float32)
    assert predict_linear(values, [13], 10, 300, 3600)[0] == 5.0
    assert predict_linear(values, [13], 10, 300, 3600 + 300)[0] < 0


def test_predict_linear_ignores_gaps_and_needs_two_samples():
    values = (3 * np.arange(50)).astype(np.float32)
    values[[41, 43, 44, 48]] = NAN
    np.testing.assert_allclose(predict_linear(values, [50], 2, 300, 3600), [3 * 51], rtol=1e-12)
    values[38:49] = NAN
    # Only the newest sample is in the range, then none: the last value.
    assert predict_linear(values, [50, 49], 2, 300, 3600).tolist() == [147.0, 111.0]
    assert predict_linear(values, [50], 5, 3600, 3600).tolist() == [147.0]
    assert np.isnan(predict_linear(values, [0], 2, 300, 3600)).all()


def test_predict_linear_stays_exact_on_a_high_level():
    values = (2.0**23 + np.arange(60)).astype(np.float32)
    assert predict_linear(values, [60], 144, 300, 3600).tolist() == [2.0**23 + 203]


def test_last_value_skips_gaps():
    values = np.array([NAN, 1, NAN, 2, NAN], np.float32)
    found = last_values(values, [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found, [NAN, NAN, 1, 1, 2, 2])


def test_seasonal_naive_is_the_newest_full_day():
    values = np.arange(40, dtype=np.float32)
    # Season 10, origin 30: one ahead is step 30 → 20; ten ahead is 39 → 29; eleven is 40 → 20.
    for ahead, expected in ((1, 20), (10, 29), (11, 20), (25, 24)):
        assert seasonal_naive(values, [30], ahead, 10).tolist() == [expected]


def test_seasonal_naive_falls_back_to_the_last_value():
    values = np.arange(40, dtype=np.float32)
    assert seasonal_naive(values, [30], 1, 0).tolist() == [29]
    assert seasonal_naive(values, [5], 1, 10).tolist() == [4]
    values[20] = NAN
    assert seasonal_naive(values, [30, 31], 1, 10).tolist() == [29, 21]


def test_ridge_learns_a_daily_wave_and_reads_no_validation_part():
    wave = np.sin(np.arange(1500) / 24 * 2 * np.pi)
    spoilt = wave.copy()
    spoilt[1200:] = 1e6
    clean = RidgeNLinear(48).fit([a_series(wave, step_seconds=3600)], 12)
    other = RidgeNLinear(48).fit([a_series(spoilt, step_seconds=3600)], 12)
    np.testing.assert_array_equal(clean.weights[12], other.weights[12])
    found = clean.predict(wave.astype(np.float32), [1300, 1306], 12)
    np.testing.assert_allclose(found, wave[[1311, 1317]], atol=0.05)


def test_ridge_repeats_a_constant():
    map_ = RidgeNLinear(24).fit([a_series(np.sin(np.arange(500)))], 3)
    assert map_.predict(np.full(100, 42.0, np.float32), [60], 3).tolist() == [42.0]


def test_auto_ets_follows_a_trend():
    auto_ets_class = load_auto_ets()
    if auto_ets_class is None:
        pytest.skip("statsforecast is not installed")
    values = np.arange(120, dtype=np.float32) + np.random.default_rng(0).normal(0, 0.1, 120)
    values[50] = NAN
    found = auto_ets(auto_ets_class, values.astype(np.float32), [100], (1, 10), 0)
    np.testing.assert_allclose(found, [[100, 109]], atol=2)
    constant = auto_ets(auto_ets_class, np.full(50, 3.0, np.float32), [40], (1, 10), 0)
    assert constant.tolist() == [[3.0, 3.0]]


# Measuring -----------------------------------------------------------------------------------


def test_measure_gives_ratios_over_the_same_origins():
    # A saw of period 10 on hourly steps: last value errs, the right answer does not.
    values = (np.arange(400) % 10).astype(np.float32)

    def oracle(series, origins, aheads):
        columns = [series.values[np.array(origins) + ahead - 1] for ahead in aheads]
        return np.stack([np.stack(columns, 1) + shift for shift in (-1.0, 0.5, 1.0)], -1)

    def silent(series, origins, aheads):
        return np.full((len(origins), len(aheads), 1), NAN)

    methods = {**simple_methods(), "oracle": oracle, "silent": silent}
    one = measure([a_series(values, step_seconds=3600)], methods, 12, 0)[0]
    assert one.errors["oracle"].tolist() == [0.5, 0.5]
    assert one.inside["oracle"].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(one.errors["last value"], one.last)
    assert np.isinf(one.errors["silent"]).all()
    assert np.isinf(figure([one], ["silent"], 0))
    # The last 20% are steps 320 … 399; origins every (400 - 12 - 320) // 10 steps.
    assert one.origins == len(range(320, 389, 6))
    assert figure([one], ["oracle"], 1) == pytest.approx(0.5 / one.last[1])


def test_measure_leaves_out_what_never_moves_or_has_no_truth():
    constant = measure([a_series(np.full(400, 5.0))], simple_methods(), 12, 0)
    assert [one.usable(0) or one.usable(1) for one in constant] == [False]
    empty = np.ones(400)
    empty[300:] = NAN
    assert measure([a_series(empty)], simple_methods(), 12, 0) == []


def of_ratio(*ratios: float) -> list[Measured]:
    both = [np.array([ratio, ratio]) for ratio in ratios]
    return [Measured("g", 10, np.ones(2), {"a": one, "b": 2 * one}, {}) for one in both]


def test_figure_floors_and_averages_seeds():
    measured = of_ratio(0.0, 0.5)
    assert figure(measured, ["a"], 1) == pytest.approx(np.sqrt(0.002 * 0.5))
    assert figure(of_ratio(0.25, 1.0), ["a", "b"], 1) == pytest.approx((0.5 + 1.0) / 2)


def test_interval_holds_the_figure_and_narrows_to_it():
    random = np.random.default_rng(0)
    measured = of_ratio(*random.lognormal(-1, 0.5, 200))
    low, high = interval(measured, ["a"], 1, 1000, 0)
    middle = figure(measured, ["a"], 1)
    # Standard error of the mean log: 0.5 / sqrt(200).
    assert low == pytest.approx(middle * np.exp(-1.96 * 0.5 / np.sqrt(200)), rel=0.02)
    assert high == pytest.approx(middle * np.exp(1.96 * 0.5 / np.sqrt(200)), rel=0.02)
    assert interval(of_ratio(0.5, 0.5), ["a"], 1, 50, 0) == pytest.approx((0.5, 0.5))
    assert interval(measured, ["a", "b"], 1, 500, 0)[1] > 1.5 * high


def test_share_better_counts_series():
    assert share_better(of_ratio(0.5, 0.7), ["a"], "b", 1) == (1.0, 2)
    assert share_better(of_ratio(0.5, 0.0), ["a"], "b", 1) == (0.5, 2)


def test_groups_by_what_is_watched():
    assert group_of(a_series([1], "asd")) == "app servers"
    assert group_of(a_series([1], "nab", path="metrics/nab/data/realAWSCloudwatch/a.csv")) == (
        "CloudWatch"
    )
    assert group_of(a_series([1], "nab", path="metrics/nab/data/realTraffic/a.csv")) == "nab"
    many = [a_series([1], "smd") for _ in range(50)] + [a_series([1], "asd") for _ in range(3)]
    chosen = [group_of(one) for one in spread_over_groups(many, 10)]
    assert (chosen.count("machines"), chosen.count("app servers")) == (7, 3)


def test_markdown_table_lines_up():
    lines = markdown_table(["a", "b"], [["long name", "1.0"], ["x", "10.00"]]).splitlines()
    assert lines[1] == "| --------- | ----: |"
    assert len({len(line) for line in lines}) == 1


# The command ---------------------------------------------------------------------------------


def arguments(root: Path, data: Path, *words: str) -> Namespace:
    parser = ArgumentParser()
    add_arguments(parser)
    chosen = parser.parse_args(["--bootstrap", "50", *words])
    return Namespace(**vars(chosen), data=data, artifacts=root, seed=0, quiet=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, toy_model) -> Artifact:
    return toy_model.make_tiny_forecaster(tmp_path_factory.mktemp("accuracy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two daily waves of app servers, one CloudWatch file and one that never moves."""
    folder = tmp_path_factory.mktemp("series")
    random = np.random.default_rng(1)
    wave = 50 + 20 * np.sin(np.arange(600) / 24 * 2 * np.pi) + random.normal(0, 3, 600)
    steady = np.full(600, 7.0)
    for name, values in {
        "metrics/asd/a.csv": wave,
        "metrics/asd/b.csv": wave[::-1],
        "metrics/asd/steady.csv": steady,
        "metrics/nab/data/realAWSCloudwatch/c.csv": wave * 2,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{1_600_002_000 + 3600 * i},{value:.3f}" for i, value in enumerate(values)]
        path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return folder


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_table_of_a_tiny_run(tiny, data):
    text = run(
        arguments(tiny.path.parents[1], data, "--preset", "custom_48_4", "--ets-series", "0")
    )
    assert cells(text, "last value") == ["1.000"] * 4
    for row in ("seasonal naive", "predict_linear[1h]", "predict_linear[6h]", "ridge NLinear"):
        assert all(float(cell) > 0 for cell in cells(text, row))
    # On a clean wave a line over six hours overshoots and yesterday does not.
    assert float(cells(text, "seasonal naive")[1]) < 1
    # The steady series is left out; its two neighbours remain.
    assert cells(text, "app servers")[0] == "2"
    figure_, low, high = (
        float(word.strip("[],")) for word in cells(text, "app servers")[2].split()
    )
    assert low <= figure_ <= high
    assert f"{figure_:.3f}" == cells(text, "this model")[0]
    assert cells(text, "AutoETS: skipped") == ["–"] * 4
    assert tiny.manifest.run_id in text
    assert "better than predict_linear[6h] in" in text


def test_auto_ets_has_a_row_or_a_reason(tiny, data):
    words = ("--run-folder", str(tiny.path), "--ets-series", "2", "--origins", "2")
    text = run(arguments(tiny.path, data, *words))
    if load_auto_ets() is None:
        assert "statsforecast is not installed" in text
    else:
        assert all(float(cell) > 0 for cell in cells(text, "AutoETS *"))
        assert len(cells(text, "this model *")) == 4


def test_hold_out_judges_only_what_it_names(tiny, data):
    words = ("--run-folder", str(tiny.path), "--ets-series", "0", "--hold-out")
    text = run(arguments(tiny.path, data, *words, "nab/realAWSCloudwatch"))
    assert len(cells(text, "last value")) == 2
    assert cells(text, "CloudWatch")[0] == "1"
    assert "it learnt from" in text
    with pytest.raises(DataFileError, match="no such system"):
        run(arguments(tiny.path, data, *words, "asd/nobody"))


def test_train_seeds_reports_their_mean(data, tmp_path):
    flags = "--epochs 0.02 --seq-len 24 --horizon 4 --origins 2"
    words = ["--preset", "next", "--ets-series", "0", "--hold-out", "nab/realAWSCloudwatch"]
    words += ["--train-flags", flags, "--train-seeds", "0,1"]
    text = run(arguments(tmp_path, data, *words))
    assert len(cells(text, "this model, 2 seeds")) == 2
    assert "seed 0, seed 1; without nab/realAWSCloudwatch" in text
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="not a list of seeds"):
        run(arguments(tmp_path, data, *words[:-1], "0;1"))


# ETTh1 ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def etth1(tmp_path_factory) -> Path:
    """A step's number in every channel, and a channel that never moves."""
    folder = tmp_path_factory.mktemp("ett")
    path = folder / "metrics" / ett.FILE
    path.parent.mkdir(parents=True)
    rows = (f"2016-07-01,{i},{2 * i},5" for i in range(15000))
    path.write_text("date,A,B,OT\n" + "\n".join(rows) + "\n")
    return folder


def test_ett_borders_and_windows(etth1):
    values = ett.read_ett(ett.find_file(DataSource(etth1, "folder")))
    assert values.shape == (15000, 3)
    numbers = values[:, :1].astype(np.float32)
    train, validation, test = (ett.windows_of(numbers, part, 720, 96) for part in ett.PARTS)
    assert [len(train), len(validation), len(test)] == [8640 - 815, 2785, 2785]
    assert (train[0, 0, 0], train[-1, 0, -1]) == (0, 8639)
    # The first step to forecast of a part is its own first step, its last one its last.
    assert (validation[0, 0, 720], validation[-1, 0, -1]) == (8640, 11519)
    assert (test[0, 0, 720], test[-1, 0, -1]) == (11520, 14399)
    assert (test[0, 0, 0], test[1, 0, 0]) == (10800, 10801)


def test_ett_scale_comes_from_the_training_part(etth1):
    values = ett.read_ett(etth1 / "metrics" / ett.FILE)
    changed = values.copy()
    changed[8640:] *= 100
    data = ett.scaled(values)
    np.testing.assert_allclose(data[:8640].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(data[:8640, :2].std(0), 1, atol=1e-4)
    np.testing.assert_array_equal(ett.scaled(changed)[:8640], data[:8640])
    assert (data[:, 2] == 0).all()


def test_ett_naive_errors():
    # Look-back 4, horizon 3, values 0 … 6: the last value errs by 1, 2, 3.
    windows = torch.arange(7.0).expand(5, 2, 7)
    assert ett.naive_errors(windows, 4, 1) == pytest.approx((14 / 3, 2.0))
    assert ett.naive_errors(windows, 4, 2) == pytest.approx(((4 + 4 + 16) / 3, 8 / 3))


def test_ett_network_learns_and_keeps_the_best_epoch():
    random = np.random.default_rng(0)
    steps = np.arange(ett.PARTS["test"][1])
    wave = np.sin(steps / 24 * 2 * np.pi)
    values = np.stack([wave, -wave], 1) + random.normal(0, 0.05, (len(steps), 2))
    settings = ett.EttSettings(
        look_back=48,
        horizon=24,
        segment_length=12,
        hidden_size=16,
        learning_rate=1e-2,
        windows_per_step=128,
        epochs=3,
    )
    lines: list[str] = []
    result = ett.train_ett(values, settings, 0, report=lines.append)
    test = ett.windows_of(ett.scaled(values), "test", 48, 24)
    assert result.mae < 0.5 * ett.naive_errors(test, 48, 1)[1]
    assert len(lines) == result.epochs == 3
    validated = [float(line.split("MSE ")[1].split()[0]) for line in lines]
    assert result.validation_mse == pytest.approx(min(validated), abs=1e-4)
    assert result.epoch == 1 + int(np.argmin(validated))


def test_ett_refuses_what_is_not_the_file(tmp_path, etth1):
    with pytest.raises(DataFileError, match="no ETTh1"):
        ett.find_file(DataSource(tmp_path, "folder"))
    short = tmp_path / "short.csv"
    short.write_text("date,A\n2016-07-01,1\n")
    with pytest.raises(DataFileError, match="at least 14400 steps"):
        ett.read_ett(short)
