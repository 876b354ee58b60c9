"""The seed's metric files: ``timestamp,value``, ``ds,y`` or the value as last column.

Further numeric columns are companion signals. Rows are put on a regular grid of the file's own
step (the median difference of its timestamps); what is missing there is NaN. A regular file is
parsed at once by pandas; one with any bad cell is parsed row by row, so that each is named.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.text_file import read_text
from training.data.time_grid import is_time_like, on_grid, seconds_of, step_of

TIME_COLUMNS = ("timestamp", "ds", "time", "date", "datetime", "step", "ts")
TARGET_COLUMNS = ("value", "y")
# Never signals: labels of public data sets and row counters.
IGNORED_COLUMNS = ("label", "is_anomaly", "anomaly")
MISSING = ("", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "na", "NA", "N/A")
_DEFAULT_STEP_SECONDS = 300


@dataclass(frozen=True)
class MetricSeries:
    """values: float32 (steps, channels), channel 0 is the target, NaN is missing; metric's unit."""

    name: str
    system: str
    step_seconds: int
    values: np.ndarray
    channel_names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class _Rows:
    """Stripped cells of every row that has the header's width, and where each stands."""

    cells: pd.DataFrame
    lines: np.ndarray


def read_metrics_csv(
    path: Path, report: RowReport, *, system: str | None = None, step_seconds: int | None = None
) -> MetricSeries:
    """Read one file; bad rows go to ``report`` with file and line.

    ``step_seconds`` overrides the step that timestamps tell (needed where they are mere counters;
    default 300 then).

    Raises:
        DataFileError: unreadable, no header, no good row; or the first bad row when strict.
    """
    # U+FFFD is no part of a number: a cell with a NUL byte is bad, not shorter.
    lines = read_text(path, nul="\ufffd").split("\n")
    header, start = _header(path, lines)
    rows = _rows_at_once(lines[start:], len(header), start)
    if rows is None:
        rows = _rows_one_by_one(path, lines[start:], header, start, report)
    time_column, channels = _choose_columns(path, header, rows.cells)
    reasons: dict[int, str] = {}
    if time_column is None:
        seconds, counter = np.arange(len(rows.lines), dtype=np.float64), True
    else:
        cells = rows.cells[time_column]
        seconds, counter = seconds_of(cells)
        for row in np.flatnonzero(~np.isfinite(seconds)).tolist():
            reasons[row] = f"{_shown(cells, row)} is not a timestamp"
    values = np.empty((len(rows.lines), len(channels)), dtype=np.float64)
    for position, column in enumerate(channels):
        cells = rows.cells[column]
        values[:, position], bad = _numbers(cells)
        for row in np.flatnonzero(bad).tolist():
            # One reason a row is enough.
            reasons.setdefault(
                row, f"{header[column]}: {_shown(cells, row)} is not a finite number"
            )
    for row in sorted(reasons):
        report.reject(path, int(rows.lines[row]), reasons[row])
    good = np.ones(len(rows.lines), dtype=bool)
    good[list(reasons)] = False
    if not good.any():
        raise DataFileError(
            "no good row in file",
            where=str(path),
            expected=f"a timestamp and a number in column {header[channels[0]]!r}",
            got=report.describe(),
        )
    # Rows without a usable value still tell the step.
    step = step_of(seconds)
    grid = on_grid(seconds[good], values[good], step)
    for place, reason in grid.dropped:
        report.reject(path, int(rows.lines[good][place]), reason)
    report.accept(int(good.sum()) - len(grid.dropped))
    return MetricSeries(
        name=path.name.removesuffix(".gz").removesuffix(".csv"),
        system=system or path.parent.name,
        step_seconds=step_seconds or (_DEFAULT_STEP_SECONDS if counter else step),
        values=grid.values,
        channel_names=tuple(header[i] for i in channels),
        source=str(path),
    )


def _header(path: Path, lines: list[str]) -> tuple[list[str], int]:
    """Column names, made up where the file has none, and the index of the first row."""
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise DataFileError(
            "no rows in file",
            where=str(path),
            expected="a header like timestamp,value and at least one row",
            got="an empty file",
        )
    names = [cell.strip() for cell in _cells(lines[first])]
    if _is_number(names[-1]) and (len(names) == 1 or is_time_like(names[0])):
        return [*(["timestamp", *map(str, range(2, len(names)))][: len(names) - 1]), "value"], first
    if not any(line.strip() for line in lines[first + 1 :]):
        raise DataFileError(
            "no rows in file",
            where=str(path),
            expected="at least one row below the header",
            got=f"only {','.join(names)!r}",
        )
    return names, first + 1


def _cells(line: str) -> list[str]:
    # Line by line: a quote that nobody closes must cost one row, not the rest of the file.
    if '"' not in line:
        return line.split(",")
    # Longer than the field limit of csv is one bad row too, not a bad file.
    return next(csv.reader([line])) if len(line) < csv.field_size_limit() else [line]


def _rows_at_once(lines: list[str], width: int, start: int) -> _Rows | None:
    """The quick way, or None when a line is irregular (then each line is looked at)."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    commas = width - 1
    if not all(line.count(",") == commas for line in lines):
        return None
    text = "\n".join(lines)
    if '"' in text or (width == 1 and "\n\n" in text):
        return None
    cells = pd.read_csv(
        io.StringIO(text),
        header=None,
        names=range(width),
        index_col=False,
        quoting=csv.QUOTE_NONE,
        skip_blank_lines=False,
        keep_default_na=False,
        na_values=list(MISSING),
        low_memory=False,
        float_precision="round_trip",
    )
    if len(cells) != len(lines):
        return None
    return _Rows(cells, np.arange(len(lines)) + start + 1)


def _rows_one_by_one(
    path: Path, lines: list[str], header: list[str], start: int, report: RowReport
) -> _Rows:
    rows: list[list[str]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=start + 1):
        if not line.strip():
            continue
        cells = _cells(line)
        if len(cells) != len(header):
            report.reject(path, number, f"expected {len(header)} columns, got {len(cells)}")
            continue
        rows.append([cell.strip() for cell in cells])
        numbers.append(number)
    if not rows:
        raise DataFileError(
            "no good row in file",
            where=str(path),
            expected=f"columns {','.join(header)}",
            got=report.describe(),
        )
    return _Rows(pd.DataFrame(rows, columns=range(len(header)), dtype=str), np.array(numbers))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _choose_columns(
    path: Path, header: list[str], cells: pd.DataFrame
) -> tuple[int | None, list[int]]:
    """Index of the time column, and of the signals with the target first."""
    lower = [name.lower() for name in header]
    time_column = next((lower.index(name) for name in TIME_COLUMNS if name in lower), None)
    if (
        time_column is None
        and len(header) > 1
        and lower[0] not in TARGET_COLUMNS
        and is_time_like(cells[0])
    ):
        time_column = 0
    candidates = [
        i for i, name in enumerate(lower) if i != time_column and name not in IGNORED_COLUMNS
    ]
    named = next((lower.index(name) for name in TARGET_COLUMNS if name in lower), None)
    # A column of words (host, region) is not a signal; the named target is, whatever it holds.
    signals = [i for i in candidates if i == named or not _numbers(cells[i])[1].mean() > 0.5]
    if not signals:
        raise DataFileError(
            "no value column",
            where=f"{path}:1",
            expected="timestamp,value (or y, or numbers in the last column)",
            got=",".join(header)[:200],
        )
    target = signals[-1] if named is None else named
    return time_column, [target, *(i for i in signals if i != target)]


def _numbers(cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """float64 per row, NaN where the cell says missing; and which cells are no finite number."""
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        numbers = cells.to_numpy(dtype=np.float64)
        return numbers, ~np.isnan(numbers) & ~_fits_float32(numbers)
    text = cells.astype("string").str.strip().fillna("")
    missing = text.isin(MISSING).to_numpy(dtype=bool)
    numbers = pd.to_numeric(text.mask(missing, "nan"), errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    return numbers, ~missing & ~_fits_float32(numbers)


def _fits_float32(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(numbers.astype(np.float32))


def _shown(cells: pd.Series, row: int) -> str:
    cell = str(cells.iloc[row])
    return repr(cell if len(cell) <= 40 else cell[:40] + "…")
