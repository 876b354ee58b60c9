"""The seed's metric files: ``timestamp,value``, ``ds,y`` or the value as last column.

Further numeric columns are companion signals. Rows are put on a regular grid of the file's own
step (the median difference of its timestamps); what is missing there is NaN.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.text_file import read_text

TIME_COLUMNS = ("timestamp", "ds", "time", "date", "datetime", "step", "ts")
TARGET_COLUMNS = ("value", "y")
# Never signals: labels of public data sets and row counters.
IGNORED_COLUMNS = ("label", "is_anomaly", "anomaly")
_DEFAULT_STEP_SECONDS = 300
# A file with one far-off timestamp must not blow up the grid.
_LARGEST_GRID_SHARE = 20


@dataclass(frozen=True)
class MetricSeries:
    """values: float32 (steps, channels), channel 0 is the target, NaN is missing; metric's unit."""

    name: str
    system: str
    step_seconds: int
    values: np.ndarray
    channel_names: tuple[str, ...]
    source: str


def read_metrics_csv(
    path: Path, report: RowReport, *, system: str | None = None, step_seconds: int | None = None
) -> MetricSeries:
    """Read one file; bad rows go to ``report`` with file and line.

    ``step_seconds`` overrides the step that timestamps tell (needed where they are mere counters;
    default 300 then).

    Raises:
        DataFileError: unreadable, no header, no good row; or the first bad row when strict.
    """
    header, rows, lines = _read_rows(path, report)
    time_column, target, companions = _choose_columns(path, header)
    channels = [target, *companions]
    table = _numbers(path, rows, lines, channels, header, report)
    if time_column is None:
        seconds = np.arange(len(rows), dtype=np.float64)
        counter = True
    else:
        seconds, counter = _seconds(path, [row[time_column] for row in rows], lines, table, report)
    good = np.isfinite(seconds) & ~np.isinf(table).any(1)
    if not good.any():
        raise DataFileError(
            "no good row in file",
            where=str(path),
            expected=f"columns {header[channels[0]]!r} and a timestamp",
            got=report.describe(),
        )
    seconds, table = seconds[good], table[good]
    report.accept(int(good.sum()))
    values, step = _on_grid(seconds, table)
    if counter:
        step = _DEFAULT_STEP_SECONDS
    return MetricSeries(
        name=path.name.removesuffix(".gz").removesuffix(".csv"),
        system=system or path.parent.name,
        step_seconds=step_seconds or step,
        values=values,
        channel_names=tuple(header[i] for i in channels),
        source=str(path),
    )


def _read_rows(path: Path, report: RowReport) -> tuple[list[str], list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(read_text(path)))
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if all(_is_number(cell) for cell in header):
                    # No header: a bare list of numbers, or timestamp and value.
                    width = len(header)
                    header = ["value"] if width == 1 else ["timestamp", *map(str, range(2, width))]
                    header = header if width == 1 else [*header, "value"]
                else:
                    continue
            if len(row) != len(header):
                report.reject(
                    path, reader.line_num, f"expected {len(header)} columns, got {len(row)}"
                )
                continue
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataFileError(
            "not a CSV file", where=f"{path}:{reader.line_num}", got=str(error)
        ) from error
    if header is None or not rows:
        raise DataFileError(
            "no rows in file",
            where=str(path),
            expected="a header like timestamp,value and at least one row",
            got="an empty file" if header is None else report.describe(),
        )
    return header, rows, lines


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _choose_columns(path: Path, header: list[str]) -> tuple[int | None, int, list[int]]:
    lower = [name.lower() for name in header]
    time_column = next((lower.index(name) for name in TIME_COLUMNS if name in lower), None)
    if time_column is None and len(header) > 1:
        time_column = 0
    signals = [
        i for i, name in enumerate(lower) if i != time_column and name not in IGNORED_COLUMNS
    ]
    if not signals:
        raise DataFileError(
            "no value column",
            where=f"{path}:1",
            expected="timestamp,value (or y, or the value as last column)",
            got=",".join(header),
        )
    target = next((lower.index(name) for name in TARGET_COLUMNS if name in lower), signals[-1])
    return time_column, target, [i for i in signals if i != target]


def _numbers(
    path: Path,
    rows: list[list[str]],
    lines: list[int],
    channels: list[int],
    header: list[str],
    report: RowReport,
) -> np.ndarray:
    """float64 (rows, channels). NaN for an empty cell; inf marks a rejected row."""
    table = np.empty((len(rows), len(channels)))
    for position, column in enumerate(channels):
        cells = pd.Series([row[column].strip() for row in rows])
        numbers = pd.to_numeric(cells.where(cells != "", "nan"), errors="coerce").to_numpy(
            dtype=np.float64, copy=True
        )
        named_missing = cells.str.lower().isin(["", "nan", "null", "none", "na"])
        bad = (np.isnan(numbers) & ~named_missing.to_numpy()) | np.isinf(numbers)
        for row in np.flatnonzero(bad):
            # Already rejected for an earlier column: one reason a row is enough.
            if not np.isinf(table[row, :position]).any():
                reason = f"{header[column]}: {cells[row]!r} is not a finite number"
                report.reject(path, lines[row], reason)
        numbers[bad] = np.inf
        table[:, position] = numbers
    return table


def _seconds(
    path: Path, cells: list[str], lines: list[int], table: np.ndarray, report: RowReport
) -> tuple[np.ndarray, bool]:
    """Epoch seconds per row (NaN = rejected), and whether they are only a step counter."""
    text = pd.Series([cell.strip() for cell in cells])
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).mean() > 0.5:
        typical = float(np.nanmedian(np.abs(numbers)))
        # Epoch milliseconds are 13 digits, epoch seconds 10; anything small is a counter.
        scale = 1e-3 if typical > 1e11 else 1.0
        seconds, counter = numbers * scale, typical < 1e8
    else:
        times = pd.to_datetime(text, errors="coerce", utc=True, format="mixed")
        seconds = (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=np.float64)
        counter = False
    for row in np.flatnonzero(~np.isfinite(seconds)):
        if not np.isinf(table[row]).any():
            report.reject(path, lines[row], f"{text[row]!r} is not a timestamp")
    return np.where(np.isfinite(seconds), seconds, np.nan), counter


def _on_grid(seconds: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, int]:
    """Sorted rows on a regular grid; the last of several rows for one grid point wins."""
    order = np.argsort(seconds, kind="stable")
    seconds, table = seconds[order], table[order]
    gaps = np.diff(seconds)
    gaps = gaps[gaps > 0]
    step = float(np.median(gaps)) if len(gaps) else float(_DEFAULT_STEP_SECONDS)
    step = max(1.0, round(step))
    index = np.rint((seconds - seconds[0]) / step)
    if index[-1] >= _LARGEST_GRID_SHARE * len(seconds) + 100:
        # Mostly gaps: keep the order and forget the distances.
        index = np.arange(len(seconds), dtype=np.float64)
    size = math.floor(index[-1]) + 1
    values = np.full((size, table.shape[1]), np.nan, dtype=np.float32)
    values[index.astype(np.int64)] = table
    return values, int(step)
