from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.metric_forecast.data import (
    Series,
    WindowSampler,
    averaged,
    hold_out,
    read_series,
    season_length_of,
    window_at,
)
from training.metric_forecast.evaluate import geometric_mean, validation_origins
from training.metric_forecast.generate import KINDS, generate


def series_of(values, family="f", system="s", step=300) -> Series:
    return Series("n", family, system, step, np.asarray(values, np.float32), "p.csv")


def write_csv(path, values, step=300):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{1_600_000_000 + i * step},{value}" for i, value in enumerate(values)]
    path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")


def test_means_are_counted_from_the_newest_and_skip_missing():
    values = np.array([9, 1, 3, np.nan, 5, np.nan, np.nan], np.float32)
    np.testing.assert_array_equal(averaged(values, 2), [2, 5, np.nan])


def test_window_is_padded_on_the_left():
    np.testing.assert_array_equal(window_at(np.arange(5.0), 3, 5), [np.nan, np.nan, 0, 1, 2])


@pytest.mark.parametrize(("step", "expected"), [(300, 288), (3600, 24), (7, 0), (0, 0), (86400, 0)])
def test_season_length(step, expected):
    assert season_length_of(step) == expected


def test_folder_of_every_format(tmp_path):
    metrics = tmp_path / "metrics"
    write_csv(metrics / "nab" / "a.csv", range(100))
    write_csv(metrics / "fine" / "b.csv", range(500), step=60)
    for part, rows in (("train", 100), ("test", 60)):
        (metrics / "asd").mkdir(exist_ok=True)
        text = "step,m00,label\n" + "".join(f"{i},{i % 7},0\n" for i in range(rows))
        (metrics / "asd" / f"host_{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    samples = [[1e9 + 60 * i, str(i)] for i in range(400)]
    answer = json.dumps([{"metric": {"__name__": "up"}, "values": samples}])
    (metrics / "prometheus_json").mkdir()
    (metrics / "prometheus_json" / "q.json.gz").write_bytes(gzip.compress(answer.encode()))
    (metrics / "nab" / "broken.csv").write_bytes(b"\x00\x01")

    report = RowReport()
    series, files = read_series(DataSource(tmp_path, "folder"), report)
    lengths = {one.name: (one.family, one.step_seconds, len(one.values)) for one in series}
    assert lengths == {
        "a": ("nab", 300, 100),
        "b": ("fine", 300, 100),
        "host/m00": ("asd", 300, 160),
        "up/0": ("prometheus_json", 300, 80),
    }
    assert {one.path for one in files} >= {"metrics/nab/a.csv", "metrics/asd/host_test.csv.gz"}
    assert "broken.csv" in report.describe()


def test_single_file_and_nothing_usable(tmp_path):
    write_csv(tmp_path / "a.csv", range(100))
    series, _ = read_series(DataSource(tmp_path / "a.csv", "file"), RowReport())
    assert [len(one.values) for one in series] == [100]
    write_csv(tmp_path / "short.csv", range(3))
    with pytest.raises(DataFileError, match="no usable metric series"):
        read_series(DataSource(tmp_path / "short.csv", "file"), RowReport())


def test_training_windows_hold_nothing_of_the_validation_part():
    values = np.random.default_rng(0).normal(size=400)
    values[320:] = 1e6
    sampler = WindowSampler([series_of(values)], context_length=50, horizon=10)
    for step in range(20):
        windows, targets, _ = sampler.draw(np.random.default_rng(step), 32)
        assert np.nanmax(np.abs(windows)) < 1e3
        assert np.nanmax(np.abs(targets)) < 1e3


def test_target_follows_its_window():
    sampler = WindowSampler([series_of(np.arange(400.0))], context_length=20, horizon=5)
    windows, targets, _ = sampler.draw(np.random.default_rng(0), 200)
    known = np.isfinite(windows[:, -1])
    steps = np.abs(targets[known, 0]) - np.abs(windows[known, -1])
    assert (steps == 1).all()


def test_same_generator_draws_the_same_windows():
    sampler = WindowSampler([series_of(np.arange(400.0))], context_length=20, horizon=5)
    first, second = (sampler.draw(np.random.default_rng(7), 16) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_constants_alone_teach_nothing():
    with pytest.raises(DataFileError, match="no series to learn from"):
        WindowSampler([series_of(np.ones(400))], 20, 5)


def test_hold_out_names_what_is_there():
    both = [series_of([1], system="a"), series_of([2], system="b")]
    kept, apart = hold_out(both, ["f/b"])
    assert [one.system for one in kept] == ["a"]
    assert [one.system for one in apart] == ["b"]
    with pytest.raises(DataFileError, match="f/a"):
        hold_out(both, ["f/c"])


def test_validation_origins_are_in_the_last_fifth():
    one = series_of(np.arange(2000.0))
    origins = validation_origins(one, 144, 10)
    assert len(origins) == 10
    assert min(origins) >= 1600
    assert max(origins) + 144 <= 2000
    # Hourly: 12 hours are 12 steps, so a short series can still be judged.
    assert validation_origins(series_of(np.arange(176.0), step=3600), 144, 0)


def test_ratios_are_floored_and_zero_baselines_survive():
    assert geometric_mean([0.0], [1.0]) == pytest.approx(0.002)
    assert geometric_mean([1.0, 4.0], [1.0, 1.0]) == pytest.approx(2.0)
    assert geometric_mean([0.0], [0.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_generated_series_vary_and_repeat(kind):
    values = generate(kind, 1, days=4)
    assert values.dtype == np.float32
    assert len(values) == 4 * 288
    assert np.nanstd(values) > 0
    assert not np.isinf(values).any()
    np.testing.assert_array_equal(values, generate(kind, 1, days=4))
    assert not np.array_equal(values, generate(kind, 2, days=4), equal_nan=True)
