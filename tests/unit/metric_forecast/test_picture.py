"""The picture of a forecast: what it shows, that it opens anywhere, and odd series."""

from __future__ import annotations

import json
import re
import struct
from argparse import ArgumentParser, Namespace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import InputError
from training.metric_forecast.arguments import add_predict_arguments
from training.metric_forecast.graph import DEFAULT_QUANTILES
from training.metric_forecast.network import LSTMForecast
from training.metric_forecast.picture import (
    Picture,
    draw,
    duration,
    free_name,
    last_timestamp,
    lone_points,
    make_picture,
    short,
    spaced,
)
from training.metric_forecast.picture_page import html_page
from training.metric_forecast.predict import predict
from training.metric_forecast.settings import settings_for

NAN = float("nan")


def a_picture(
    values,
    name: str = "cpu.csv",
    horizon: int = 24,
    step_seconds: int = 300,
    median: float | None = None,
    **changes,
) -> Picture:
    values = np.asarray(values, dtype=np.float64)
    middle = float(np.nanmedian(values)) if median is None else median
    record = {
        "series": name,
        "step_seconds": step_seconds,
        "horizon": horizon,
        "source": "seasonal",
        "quantiles": {str(q): [middle + 10 * (q - 0.5)] * horizon for q in (0.1, 0.5, 0.9)},
    }
    return make_picture(record, values, **changes)


def wave(length: int = 400) -> np.ndarray:
    return 50 + 20 * np.sin(np.arange(length) / 50)


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


class Elements(HTMLParser):
    """Every start tag with its attributes; raises nothing, so we also count what is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def paths(self, class_: str) -> list[str]:
        return [a["d"] or "" for t, a in self.tags if t == "path" and a.get("class") == class_]


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


# What is drawn -----------------------------------------------------------------------------------


def test_the_line_is_predict_linear_over_six_hours():
    values = np.concatenate([np.full(300, 1000.0), 10 + 0.5 * np.arange(72)])
    picture = a_picture(values)
    assert (picture.line_start, len(picture.line)) == (-71, 72 + 24)
    # At "now" the last value, 24 steps later half of 24 more.
    np.testing.assert_allclose(picture.line[71], values[-1])
    np.testing.assert_allclose(picture.line[-1], values[-1] + 12)


def test_threshold_given_or_from_the_whole_history():
    values = np.concatenate([np.full(1000, 90.0), np.zeros(2000)])
    own = a_picture(values)
    assert (len(own.history), own.threshold) == (144, 90.0)
    assert own.labels["threshold"].startswith("threshold 90 (95th percentile of history")
    given = a_picture(values, threshold=2.5)
    assert given.labels["threshold"] == "threshold 2.5 (given)"
    for wrong in (NAN, float("inf")):
        with pytest.raises(InputError, match="--threshold"):
            a_picture(values, threshold=wrong)


def test_verdict_names_the_first_step_above():
    rising = a_picture(np.arange(100.0), threshold=105.0)
    # Line: 99 now, one a step: 106 is seven ahead. The median stays at 49.5.
    assert rising.verdict == (
        "median stays at or below the threshold;"
        " predict_linear[6h] is above the threshold in 35 min"
    )
    assert a_picture(wave(), threshold=0.0, step_seconds=0).verdict.startswith(
        "median is above the threshold in 1 step;"
    )


def test_a_line_that_leaves_is_cut_off_and_its_end_named():
    values = wave()
    values[-72:] += 2 * np.arange(72)
    picture = a_picture(values, horizon=144)
    bottom, top = picture.limits()
    assert bottom <= picture.history.min()
    assert picture.history.max() < top < picture.line[-1]
    assert picture.labels["line"] == f"predict_linear[6h] → {picture.line[-1]:.4g}"
    # A threshold out of reach does not flatten the rest, and the legend says where it is.
    far = a_picture(wave(), threshold=1e6)
    assert far.limits() == a_picture(wave()).limits()
    assert far.labels["threshold"] == "threshold 1000k (given, off the picture)"


def test_how_much_history():
    assert len(a_picture(np.zeros(5000), horizon=144).history) == 864
    assert len(a_picture(np.zeros(5000), horizon=144, step_seconds=3600).history) == 288
    assert len(a_picture(np.zeros(5000), horizon=1, step_seconds=60).history) == 60
    assert len(a_picture(np.zeros(30), horizon=144).history) == 30


# Both formats ------------------------------------------------------------------------------------

ODD = {
    "gaps": np.where(np.arange(300) % 50 < 20, NAN, wave(300)),
    "ends in a gap": np.concatenate([wave(100), np.full(20, NAN)]),
    "one point": [42.0],
    "two points far apart": [1.0, *[NAN] * 50, 2.0],
    "constant": np.full(200, 7.0),
    "zero": np.zeros(200),
    "huge": wave() * 1e12,
    "level without spread": np.full(200, 1e12) + np.arange(200) % 2,
    "negative": -wave(),
    "wild jump": np.concatenate([wave(), [1e12], wave(50)]),
    "tiny": wave() * 1e-12,
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_series_open_in_both_formats(kind, tmp_path):
    horizon = 1 if kind == "one point" else 24
    step = 0 if kind == "zero" else 300
    picture = a_picture(ODD[kind], name=kind, horizon=horizon, step_seconds=step)
    bottom, top = picture.limits()
    assert np.isfinite([bottom, top]).all()
    assert bottom < top
    labels = [label for _, label in picture.y_ticks()]
    assert 2 <= len(set(labels)) == len(labels)
    png, html = draw(picture, tmp_path / "new" / "folder", set())
    assert png_size(png) == (1320, 576)
    text = html.read_text()
    assert "nan" not in "".join(Elements(text).paths("history")).lower()
    assert len(data_of(text)["history"]) == len(picture.history)


def test_a_gap_is_a_gap():
    values = wave(100)
    values[[30, 31, 60, 62]] = np.nan
    assert lone_points(values).tolist() == [61]
    text = html_page(a_picture(values))
    elements = Elements(text)
    (path,) = elements.paths("history")
    # Four strokes: up to 29, 32 … 59, the lone point, 63 … 99.
    assert path.count("M") == 4
    assert path.count("L") == 29 + 27 + 36
    assert sum(tag == "circle" and a.get("class") == "history" for tag, a in elements.tags) == 1
    assert [i for i, value in enumerate(data_of(text)["history"]) if value is None] == [
        30, 31, 60, 62,
    ]  # fmt: skip


def test_the_page_loads_nothing_and_holds_what_the_pointer_shows():
    picture = a_picture(wave(), end_seconds=1_600_002_000.0)
    text = html_page(picture)
    # Nothing is fetched: no address anywhere, no attribute that would load one.
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    for tag, attributes in Elements(text).tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "xlink:href", "srcset"} & set(attributes)
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text
    data = data_of(text)
    assert (data["end"], data["step"], data["first"]) == (1_600_002_000.0, 300, -143)
    np.testing.assert_allclose(data["history"], picture.history, rtol=1e-6)
    np.testing.assert_allclose(data["high"], picture.high, rtol=1e-6)
    # The pointer finds the first step where it is drawn.
    drawn = float(Elements(text).paths("history")[0][1:].split()[0])
    assert data["x"][0] + data["first"] * data["x"][1] == pytest.approx(drawn, abs=0.02)
    for line in ("history", "band", "forecast", "line", "threshold"):
        assert len(Elements(text).paths(line)) == 1


def test_a_hostile_name_stays_text(tmp_path):
    name = '../../$x$ "</script><img src=x onerror=alert(1)>.csv'
    png, html = draw(a_picture(wave(), name=name), tmp_path, set())
    assert png.parent == html.parent == tmp_path
    assert not any(tag == "img" for tag, _ in Elements(html.read_text()).tags)


def test_names_of_files():
    taken: set[str] = set()
    assert free_name("cpu.csv", taken) == "cpu"
    assert free_name("CPU.csv.gz", taken) == "CPU-2"
    assert free_name("显存 使用率.csv", taken) == "显存_使用率"
    assert free_name("../..", taken) == "_"
    assert free_name("...", taken) == "series"
    assert len(free_name("组" * 300, taken).encode()) <= 200


# Axes --------------------------------------------------------------------------------------------


def test_clock_times_where_they_are_known():
    # Midnight is 240 steps of 5 minutes before 20:00.
    end = 1_600_041_600.0 - 4 * 3600
    known = a_picture(wave(), horizon=144, end_seconds=end)
    assert {label: at for at, label in known.x_ticks()}["14 Sep"] == 48
    assert known.x_label == "UTC, the last step known is 2020-09-13 20:00"
    counted = a_picture(wave(), horizon=144)
    assert (0.0, "now") in counted.x_ticks()
    assert counted.x_label == "steps of 5 min from the last one known"


def test_words_for_numbers():
    assert [duration(s) for s in (300, 27000, 90061, 0, 45)] == [
        "5 min", "7 h 30 min", "1 d 1 h", "unknown", "45 s",
    ]  # fmt: skip
    assert [short(v) for v in (0.98, 12.3456, 1234.0, 123456.0, 2e9, -5e13)] == [
        "0.98", "12.35", "1234", "123.5k", "2000M", "-50T",
    ]  # fmt: skip
    assert spaced(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert spaced(-1, 1, whole=True) == [-1, 0, 1]


def write(path: Path, times, values) -> Path:
    rows = "\n".join(f"{time},{value}" for time, value in zip(times, values, strict=True))
    path.write_text(f"timestamp,value\n{rows}\n")
    return path


def test_last_timestamp(tmp_path):
    path = tmp_path / "a.csv"
    write(path, ["2020-09-13 20:00:00", "2020-09-13 20:10:00"], [1, 2])
    assert last_timestamp(path, 2, 600) == 1_600_027_800
    # As many steps as were read: anything else is not certain.
    assert last_timestamp(path, 3, 600) is None
    assert last_timestamp(write(path, [0, 1, 2], [1, 2, 3]), 3, 1) is None
    assert last_timestamp(write(path, [1_600_000_000_000, 1_600_000_060_000], [1, 2]), 2, 60) == (
        1_600_000_060
    )
    path.write_text("value\n1\n2\n3\n")
    assert last_timestamp(path, 3, 300) is None
    assert last_timestamp(tmp_path / "none.csv", 3, 300) is None


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """An untrained network of 48 steps to 4 in place of a run's."""
    torch.manual_seed(0)
    network = LSTMForecast(settings_for(48, 4, DEFAULT_QUANTILES)).eval()
    monkeypatch.setattr("training.metric_forecast.predict.load_network", lambda _: network)


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_predict_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.usefixtures("tiny")
def test_predict_plots_each_file_and_goes_on_after_a_bad_one(tmp_path):
    hours = [1_600_002_000 + 3600 * i for i in range(100)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "cpu.csv", hours, wave(100))
    minutes = [1_600_002_000 + 60 * i for i in range(100)]
    files = [
        str(tmp_path / "a" / "cpu.csv"),
        str(tmp_path / "missing.csv"),
        str(tmp_path / "b" / "cpu.csv"),
        str(write(tmp_path / "minutes.csv", minutes, wave(100))),
    ]
    plots = tmp_path / "plots"
    records = list(predict(None, arguments(*files, "--plot", str(plots), "--threshold", "60")))
    assert ["error" in record for record in records] == [False, True, False, False]
    assert sorted(path.name for path in plots.iterdir()) == [
        "cpu-2.html", "cpu-2.png", "cpu.html", "cpu.png", "minutes.html", "minutes.png",
    ]  # fmt: skip
    assert records[2]["picture"] == [str(plots / "cpu-2.png"), str(plots / "cpu-2.html")]
    text = (plots / "cpu.html").read_text()
    assert "threshold 60 (given)" in text
    assert data_of(text)["end"] == hours[-1]
    np.testing.assert_allclose(data_of(text)["median"], records[0]["median"], rtol=1e-6)


@pytest.mark.usefixtures("tiny")
def test_a_folder_that_cannot_be_and_a_threshold_without_one(tmp_path):
    path = write(tmp_path / "a.csv", range(50), wave(50))
    (record,) = predict(None, arguments(str(path), "--plot", str(path)))
    assert "picture cannot be written" in record["error"]
    with pytest.raises(InputError, match="--plot FOLDER"):
        list(predict(None, arguments(str(path), "--threshold", "1")))
