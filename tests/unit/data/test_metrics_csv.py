"""Metric files as users really have them: nothing good is lost, nothing bad goes unnamed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import DataFileError
from training.data.metrics_csv import MetricSeries, read_metrics_csv
from training.data.row_report import RowReport


def read(
    folder: Path, text: str | bytes, *, strict: bool = False
) -> tuple[MetricSeries, RowReport]:
    path = folder / "cpu.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    report = RowReport(strict)
    return read_metrics_csv(path, report), report


def rows(*values: object, start: int = 1_700_000_000, step: int = 60) -> str:
    lines = [f"{start + i * step},{value}" for i, value in enumerate(values)]
    return "\n".join(["timestamp,value", *lines]) + "\n"


def target(series: MetricSeries) -> list[float]:
    return [float(value) for value in series.values[:, 0]]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (rows(1, 2, 3), 60),
        ("ds,y\n2024-01-01 00:00:00,1\n2024-01-01 00:05:00,2\n2024-01-01 00:10:00,3\n", 300),
        ("TimeStamp,Value,Label\n1/1/2024 00:00,1,0\n1/1/2024 01:00,2,0\n1/1/2024 02:00,3,1", 3600),
        ("timestamp,value\n1700000000000,1\n1700000030000,2\n1700000060000,3\n", 30),
        ("timestamp,value\n1700000000,1\n1700000030,2\n1700000060,3\n", 30),
        ("y\n1\n2\n3\n", 300),
        ("1\n2\n3\n", 300),
        ("1700000000,1\n1700000060,2\n1700000120,3\n", 60),
        ("2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,2\n2024-01-01T00:02:00Z,3\n", 60),
        ("step,value\n0,1\n1,2\n2,3\n", 300),
        ("\ufefftimestamp,value\r\n1700000000,1\r\n1700000060,2\r\n1700000120,3\r\n", 60),
        ('timestamp,value\n"1700000000","1"\n"1700000060","2"\n"1700000120","3"\n', 60),
        ("\n\ntimestamp,value\n\n1700000000, 1\n1700000060 ,2\n\n1700000120,3\n\n", 60),
        ("when,load\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n", 86400),
    ],
)
def test_every_seed_form_reads_the_same_series(tmp_path: Path, text: str, step: int) -> None:
    series, report = read(tmp_path, text, strict=True)
    assert target(series) == [1, 2, 3]
    assert (series.step_seconds, report.rows, report.skipped) == (step, 3, [])
    assert series.values.dtype == np.float32


def test_gzip_by_suffix(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv.gz"
    path.write_bytes(gzip.compress(rows(1, 2).encode()))
    series = read_metrics_csv(path, RowReport(strict=True))
    assert (series.name, target(series)) == ("cpu", [1, 2])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFileError, match=r"cpu\.csv\.gz"):
        read_metrics_csv(path, RowReport())


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("abc", "'abc' is not a finite number"),
        ("inf", "'inf' is not a finite number"),
        ("-Infinity", "is not a finite number"),
        ("1e39", r"'1e\+?39' is not a finite number"),
        ("1e999", "is not a finite number"),
        ("True", "'True' is not a finite number"),
        ("4\x002", "is not a finite number"),
        ("4,2", "expected 2 columns, got 3"),
        ('"4,2"', "'4,2' is not a finite number"),
        ("数", "'数' is not a finite number"),
    ],
)
def test_a_bad_row_is_named_and_the_others_stay(tmp_path: Path, cell: str, reason: str) -> None:
    text = rows(1, 2, cell, 4, 5)
    series, report = read(tmp_path, text)
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, np.nan, 4, 5])
    assert report.rows == 4
    (skipped,) = report.skipped
    assert (skipped.file, skipped.line) == (str(tmp_path / "cpu.csv"), 4)
    with pytest.raises(DataFileError, match=r"cpu\.csv:4"):
        read(tmp_path, text, strict=True)
    assert re.search(reason, skipped.reason)
    assert f"4 rows, 1 skipped (first: {tmp_path}/cpu.csv:4: " in report.describe()


def test_a_quote_that_nobody_closes_costs_no_other_row(tmp_path: Path) -> None:
    series, _ = read(tmp_path, rows(1, 2, '"3', 4, 5))
    assert target(series) == [1, 2, 3, 4, 5]


def test_invalid_utf8_and_bad_timestamps_are_rows_not_files(tmp_path: Path) -> None:
    text = rows(1, 2, 3, 4).encode().replace(b",2", b",\xff2") + b"yesterday,5\n"
    series, report = read(tmp_path, text)
    np.testing.assert_array_equal(series.values[:, 0], [1, np.nan, 3, 4])
    assert [row.line for row in report.skipped] == [3, 6]
    assert "'yesterday' is not a timestamp" in report.skipped[1].reason


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "null", "NA"])
def test_missing_is_not_bad(tmp_path: Path, cell: str) -> None:
    series, report = read(tmp_path, rows(1, cell, 3), strict=True)
    np.testing.assert_array_equal(series.values[:, 0], [1, np.nan, 3])
    assert report.rows == 3


def test_gaps_order_and_repeats(tmp_path: Path) -> None:
    text = "timestamp,value\n240,5\n0,1\n60,2\n60,2\n120,30\n120,3\n"
    series, report = read(tmp_path, text)
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3, np.nan, 5])
    assert [(row.line, row.reason) for row in report.skipped] == [
        (6, "a later line has the same timestamp")
    ]
    assert report.rows == 5


def test_one_far_off_timestamp_costs_one_row(tmp_path: Path) -> None:
    text = rows(*range(40)) + "9700000000,7\n"
    series, report = read(tmp_path, text)
    assert target(series) == list(range(40))
    assert [row.line for row in report.skipped] == [42]


def test_companions_follow_the_target(tmp_path: Path) -> None:
    text = "timestamp,host,cpu,value,mem,label\n0,a,1,10,7,0\n60,b,2,20,,1\n120,c,3,30,9,0\n"
    series, _ = read(tmp_path, text, strict=True)
    assert series.channel_names == ("value", "cpu", "mem")
    np.testing.assert_array_equal(series.values, [[10, 1, 7], [20, 2, np.nan], [30, 3, 9]])
    last, _ = read(tmp_path, "time,a,b\n0,1,4\n60,2,5\n120,3,6\n")
    assert (last.channel_names, target(last)) == (("b", "a"), [4, 5, 6])
    alone, _ = read(tmp_path, "y,cpu\n1,5\n2,9\n3,1\n")
    assert (alone.channel_names, target(alone)) == (("y", "cpu"), [1, 2, 3])


@pytest.mark.parametrize(
    "text",
    ["", "\n \n", "timestamp,value\n", "timestamp,value\n\n\n", "timestamp,value\nx,y\nz,w\n", "a"],
)
def test_a_file_without_a_good_row_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataFileError, match=r"cpu\.csv"):
        read(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"no\.csv"):
        read_metrics_csv(tmp_path / "no.csv", RowReport())


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32)),
        min_size=2,
        max_size=30,
    ).filter(lambda values: values[0] is not None and values[-1] is not None),
    bad=st.dictionaries(st.integers(0, 40), st.text(alphabet='x",#é \t', min_size=1), max_size=4),
)
def test_good_rows_survive_any_bad_ones(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], bad: dict[int, str]
) -> None:
    """The quick way and the careful way read the same, and every line is accounted for."""
    lines = [
        f"{1_700_000_000 + i * 60},{'' if v is None else repr(v)}" for i, v in enumerate(values)
    ]
    expected = np.array([np.nan if v is None else v for v in values], dtype=np.float32)
    folder = tmp_path_factory.mktemp("csv")
    quick, _ = read(folder, "\n".join(["timestamp,value", *lines]), strict=True)
    np.testing.assert_array_equal(quick.values[:, 0], expected)

    soiled = list(lines)
    for position, words in sorted(bad.items(), reverse=True):
        soiled.insert(min(position, len(lines)), f"junk {words}")
    careful, report = read(folder, "\n".join(["timestamp,value", *soiled]))
    np.testing.assert_array_equal(careful.values[:, 0], expected)
    assert report.rows == len(values)
    named = sorted(row.line for row in report.skipped)
    assert named == [2 + i for i, line in enumerate(soiled) if line.startswith("junk")]


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=300))
def test_any_bytes_give_a_series_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    try:
        series, _ = read(tmp_path_factory.mktemp("csv"), b"timestamp,value\n0,1\n60,2\n" + raw)
    except DataFileError:
        return
    assert not np.isinf(series.values).any()
