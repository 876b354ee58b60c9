"""Metric series to model windows: validation, resampling, the newest context, NaN padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from clients.results import Array
from contract.errors import SeriesError

SECONDS_A_DAY = 86_400
RESAMPLED_STEP_SECONDS = 300
"""Finer series are averaged to this step before a model of long context sees them."""
SMALLEST_POINTS = 3
"""Fewer finite points than this say nothing about a metric's future."""
LARGEST_POINTS = 1_000_000
_LONG_CONTEXT = 288
_LONGEST_SEASON = SECONDS_A_DAY * 1000
_ROWS_AT_A_TIME = 4096
_LARGEST_VALUE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Windows:
    """values: float32 (series, context_length), NaN = missing; season_length in steps a day."""

    values: Array
    season_length: int
    step_seconds: float
    errors: dict[int, str]


def make_windows(
    series: Any, *, step_seconds: float, context_length: int, on_error: str = "raise"
) -> Windows:
    """One window a series.

    ``series``: a list of series of any lengths, a 2-D array (series, points), or one series.
    None and NaN are missing points. With ``on_error="skip"`` a bad series becomes a row of NaN
    and an entry in ``errors``.

    Raises:
        SeriesError: says which series and why.
    """
    if on_error not in {"raise", "skip"}:
        raise SeriesError("unknown on_error", expected="raise or skip", got=repr(on_error))
    if not (isinstance(step_seconds, Real) and 0 < float(step_seconds) < math.inf):
        raise SeriesError(
            "step_seconds is no time span", expected="a positive number", got=repr(step_seconds)
        )
    rows = _as_list(series)
    resample = context_length >= _LONG_CONTEXT and step_seconds < RESAMPLED_STEP_SECONDS
    step = float(RESAMPLED_STEP_SECONDS) if resample else float(step_seconds)
    values = np.full((len(rows), context_length), np.nan, dtype=np.float32)
    errors: dict[int, str] = {}
    plain = np.zeros(len(rows), dtype=bool)
    matrix = isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind == "f"
    if matrix and not resample:
        # A hundred thousand rows of a matrix are looked at together, the odd ones one by one.
        recent = np.asarray(rows)[:, -context_length:]
        plain = _plainly_good(np.asarray(rows), recent)
        values[plain, context_length - recent.shape[1] :] = recent[plain]
    for index in np.flatnonzero(~plain).tolist():
        row = rows[index]
        try:
            points = _check(row, index)
        except SeriesError as error:
            if on_error == "raise":
                raise
            errors[index] = str(error)
            continue
        if resample:
            points = _average(points, step_seconds)
        newest = points[-context_length:]
        if not np.isfinite(newest).any():
            missing = _nothing_recent(index, context_length)
            if on_error == "raise":
                raise missing
            errors[index] = str(missing)
            continue
        values[index, context_length - len(newest) :] = newest
    return Windows(values, _season_length(step), step, errors)


def _plainly_good(rows: Array, recent: Array) -> Array:
    """bool (series,): rows of a float matrix that ``_check`` has nothing to say about, and that
    have a point among their newest columns.
    """
    if not 0 < rows.shape[1] <= LARGEST_POINTS:
        return np.zeros(len(rows), dtype=bool)
    good: Array = np.ones(len(rows), dtype=bool)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        block = rows[part]
        finite = np.isfinite(block)
        with np.errstate(invalid="ignore"):
            wild = (np.abs(block) > _LARGEST_VALUE).any(axis=1)
        enough = finite.sum(axis=1) >= SMALLEST_POINTS
        good[part] = enough & ~wild & np.isfinite(recent[part]).any(axis=1)
    return good


def _nothing_recent(index: int, context_length: int) -> SeriesError:
    return SeriesError(
        "nothing recent to forecast from",
        where=f"series {index}",
        expected=f"a point that is not missing among the newest {context_length}",
        got="only missing ones",
    )


def _as_list(series: Any) -> Sequence[Any]:
    if isinstance(series, (str, bytes)) or not hasattr(series, "__len__"):
        raise SeriesError(
            "not a series", expected="a list of series of numbers", got=type(series).__name__
        )
    if isinstance(series, np.ndarray):
        if series.ndim == 0:
            raise SeriesError(
                "not a series", expected="a list of series of numbers", got=repr(series)
            )
        if series.dtype == object:
            series = list(series)
        elif series.ndim == 1:
            return [series]
    if len(series) == 0:
        raise SeriesError("no series", expected="at least one", got="an empty list")
    if not isinstance(series, np.ndarray) and all(
        point is None or isinstance(point, (int, float, np.number)) for point in series
    ):
        return [series]
    rows: Sequence[Any] = series
    return rows


def _check(row: Any, index: int) -> Array:
    """float64 (points,). Raises SeriesError."""
    where = f"series {index}"
    try:
        if isinstance(row, np.ndarray) and row.dtype.kind in "fiu":
            points: Array = row.astype(np.float64)
        else:
            # Text is no number, not even "1": np.array would read it, and b"123" as three points.
            if isinstance(row, (str, bytes)) or any(isinstance(p, (str, bytes)) for p in row):
                raise TypeError("text")
            points = np.array([np.nan if p is None else p for p in row], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        bad = next((p for p in _iterate(row) if not _is_number(p)), row)
        raise SeriesError(
            "a point is not a number",
            where=where,
            expected="numbers, or None/NaN where one is missing",
            got=repr(bad)[:80],
        ) from error
    if points.ndim != 1:
        raise SeriesError(
            "wrong number of channels",
            where=where,
            expected="1 channel: shape (points,)",
            got=f"shape {points.shape}",
            next_command="send companion signals as series of their own",
        )
    if len(points) == 0:
        raise SeriesError("empty series", where=where, expected=f"{SMALLEST_POINTS} points or more")
    if len(points) > LARGEST_POINTS:
        raise SeriesError(
            "series too long",
            where=where,
            expected=f"at most {LARGEST_POINTS:,} points",
            got=f"{len(points):,}",
        )
    infinite = np.flatnonzero(np.isinf(points))
    if len(infinite):
        raise SeriesError(
            "infinite value",
            where=f"{where}, point {infinite[0]}",
            expected="finite numbers, or NaN where one is missing",
            got=str(points[infinite[0]]),
        )
    huge = np.flatnonzero(np.abs(points) > _LARGEST_VALUE)
    if len(huge):
        raise SeriesError(
            "value too large",
            where=f"{where}, point {huge[0]}",
            expected=f"at most {_LARGEST_VALUE:.2g}, what float32 holds",
            got=str(points[huge[0]]),
        )
    finite = int(np.isfinite(points).sum())
    if finite < SMALLEST_POINTS:
        raise SeriesError(
            "series too short",
            where=where,
            expected=f"at least {SMALLEST_POINTS} points that are not missing",
            got=str(finite),
        )
    return points


def _iterate(row: Any) -> Sequence[Any]:
    return row if hasattr(row, "__iter__") and not isinstance(row, (str, bytes)) else [row]


def _is_number(point: Any) -> bool:
    if isinstance(point, (str, bytes)):
        return False
    try:
        float("nan" if point is None else point)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _average(points: Array, step_seconds: float) -> Array:
    """Means over 5 minutes, counted back from the newest point; empty bins stay NaN."""
    age = np.arange(len(points))[::-1] * step_seconds
    bins = (age // RESAMPLED_STEP_SECONDS).astype(np.int64)
    bins = bins.max() - bins
    finite = np.isfinite(points)
    count = np.bincount(bins, weights=finite)
    total = np.bincount(bins, weights=np.where(finite, points, 0.0))
    means: Array = np.full(len(count), np.nan)
    means[count > 0] = total[count > 0] / count[count > 0]
    return means


def _season_length(step_seconds: float) -> int:
    """Steps a day, 0 when a day is no whole number of steps."""
    steps = SECONDS_A_DAY / step_seconds
    return int(steps) if 2 <= steps <= _LONGEST_SEASON and steps == int(steps) else 0
