"""Timestamps as seconds, and rows put on the regular grid of their own step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

# Epoch seconds have 10 digits, milliseconds 13, microseconds 16, nanoseconds 19.
_SCALES = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
_SMALLEST_EPOCH = 1e8
_FALLBACK_STEP_SECONDS = 300
# A timestamp this many times the whole file's length away from the middle is a typing error.
_FAR_OFF = 20


@dataclass(frozen=True)
class Grid:
    """values: float32 (steps, channels); ``dropped``: (row, reason) of rows that found no place."""

    values: np.ndarray
    dropped: list[tuple[int, str]] = field(default_factory=list)


def seconds_of(cells: pd.Series) -> tuple[np.ndarray, bool]:
    """Epoch seconds per cell, NaN where it is no time; and whether they are only a counter."""
    numbers, times = _numbers(cells), None
    if np.isnan(numbers).any():
        times = _dates(cells.where(np.isnan(numbers)))
    if times is None or np.isfinite(numbers).sum() >= np.isfinite(times).sum():
        finite = np.abs(numbers[np.isfinite(numbers)])
        typical = float(np.median(finite)) if len(finite) else np.nan
        scale = next((scale for limit, scale in _SCALES if typical > limit), 1.0)
        return numbers * scale, typical < _SMALLEST_EPOCH
    return times, False


def _numbers(cells: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan, copy=True
    )
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _dates(cells: pd.Series) -> np.ndarray:
    text = cells.astype("string").str.strip()
    times = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    other = (times.isna() & text.notna()).to_numpy(dtype=bool)
    if other.any():
        times = times.mask(
            other, pd.to_datetime(text.where(other), errors="coerce", utc=True, format="mixed")
        )
    return (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(np.float64)


def is_time_like(cells: pd.Series | str) -> bool:
    """Whether a column without a telling name holds times: dates, or numbers that keep rising."""
    if isinstance(cells, str):
        return bool(np.isfinite(seconds_of(pd.Series([cells]))[0]).all())
    seconds, _ = seconds_of(cells)
    there = seconds[np.isfinite(seconds)]
    if len(there) < 0.5 * len(seconds):
        return False
    dates = np.isfinite(_numbers(cells)).mean() <= 0.5
    return bool(dates or len(there) < 2 or (np.diff(there) > 0).mean() >= 0.9)


def step_of(seconds: np.ndarray) -> int:
    """Median distance of neighbouring times, at least one second; NaN are passed over."""
    gaps = np.diff(np.sort(seconds[np.isfinite(seconds)]))
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return _FALLBACK_STEP_SECONDS
    return max(1, round(float(np.quantile(gaps, 0.5, method="lower"))))


def on_grid(seconds: np.ndarray, values: np.ndarray, step_seconds: int) -> Grid:
    """Sort rows by time and place them on the grid of a step.

    Of two rows for the same time the later line counts; a row that contradicts it is dropped, as
    is one whose time is absurdly far from the others (it would blow up the grid).

    Args:
        seconds: float64 (rows,), finite
        values: float64 (rows, channels)
    """
    order = np.argsort(seconds, kind="stable")
    dropped: list[tuple[int, str]] = []
    middle = float(np.median(seconds))
    far = np.abs(seconds - middle) > _FAR_OFF * step_seconds * (len(seconds) + 100)
    if far.mean() < 0.05:
        for row in np.flatnonzero(far):
            dropped.append((int(row), f"its time is {_FAR_OFF} times the file's length away"))
        order = order[~far[order]]
    ordered, table = seconds[order], values[order]
    repeated = np.flatnonzero(np.diff(ordered) == 0)
    for position in repeated:
        if not np.array_equal(table[position], table[position + 1], equal_nan=True):
            dropped.append((int(order[position]), "a later line has the same timestamp"))
    index = np.rint((ordered - ordered[0]) / step_seconds).astype(np.int64)
    if index[-1] >= _FAR_OFF * (len(seconds) + 100):
        # Mostly gaps: keep the order and forget the distances.
        index = np.arange(len(order))
    grid = np.full((int(index[-1]) + 1, values.shape[1]), np.nan, dtype=np.float32)
    grid[index] = table
    return Grid(grid, dropped)
