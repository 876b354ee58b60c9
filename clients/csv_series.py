"""A metric as CSV: ``timestamp,value``, a column ``y``, the last column, or bare numbers."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from contract.errors import DataFileError, SeriesError

_TIME_NAMES = {"timestamp", "ds", "time", "date", "datetime", "step", "ts"}
_CLOCK_SECONDS = 1e8
"""Smaller numbers are a step counter, not a clock."""


@dataclass(frozen=True)
class CsvSeries:
    """Values in order, NaN = missing; ``step_seconds`` is None where no timestamps tell it."""

    values: list[float]
    step_seconds: float | None


def read_csv_series(name: str, text: str) -> CsvSeries:
    """Raises DataFileError (which row), SeriesError (nothing in it)."""
    reader = csv.reader(text.splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        where = f"{name}:{reader.line_num}"
        raise DataFileError("not a CSV file", where=where, got=str(error)) from error
    if not rows:
        raise SeriesError("empty file", where=name, expected="timestamp,value rows")
    header = [cell.strip().lower() for cell in rows[0][1]]
    has_header = not all(_float(cell) is not None for cell in header[-1:])
    column = len(header) - 1
    if has_header:
        column = next((header.index(n) for n in ("value", "y") if n in header), column)
        rows = rows[1:]
    times = (has_header and header[0] in _TIME_NAMES) or (not has_header and len(header) > 1)
    values, stamps = [], []
    for line, row in rows:
        value = _float(row[column]) if column < len(row) else None
        if value is None:
            raise DataFileError(
                "a row has no number", where=f"{name}:{line}", got=",".join(row)[:80]
            )
        values.append(value)
        stamps.append(_stamp(row[0]) if times else None)
    known = [s for s in stamps if s is not None]
    gaps = [b - a for a, b in itertools.pairwise(known) if b > a]
    step = median(gaps) if gaps and known[0] > _CLOCK_SECONDS else None
    return CsvSeries(values, step)


def _float(cell: str) -> float | None:
    if not cell.strip():
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _stamp(cell: str) -> float | None:
    number = _float(cell)
    if number is not None:
        return number * 1e-3 if number > 1e11 else number
    try:
        return datetime.fromisoformat(cell.strip()).timestamp()
    except ValueError:
        return None
