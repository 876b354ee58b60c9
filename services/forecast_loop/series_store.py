"""``SeriesStore``: the newest points of one query's series, in one matrix of fixed size.

A row is a series, known by its identifying labels; a column is a step. Rows are given out once and
used again, so memory stays flat however many series come and go.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clients.results import Array
from services.forecast_loop.grid import Grid

Key = tuple[str, ...]
"""The values of a series' identifying labels, in the order of ``Query.labels``."""

_SHIFTED_ROWS = 4096
"""Shifting copies a block first: rows go in parts, or the whole matrix would be there twice."""


@dataclass
class Oddities:
    """What was odd about series that were read: how many by reason, and the first by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str, number: int = 1) -> None:
        self.counts[reason] += number
        self.examples.setdefault(reason, example)


class SeriesStore:
    """``values``: float32 (max_series, columns), NaN = missing; the last column is ``end_seconds``.

    ``fresh_columns``: a series without a point among so many newest columns has departed. It is not
    forecast, makes room for new ones, and leaves for good when its window is empty.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        columns: int,
        step_seconds: int,
        max_series: int,
        fresh_columns: int,
    ) -> None:
        self.labels = tuple(labels)
        self.columns = columns
        self.step_seconds = step_seconds
        self.max_series = max_series
        self.fresh_columns = min(columns, max(1, fresh_columns))
        # Untouched pages cost no memory, so the largest size may be asked for at once.
        self.values: Array = np.empty((max_series, columns), dtype=np.float32)
        self.keys: list[Key | None] = []
        self.end_seconds: int | None = None
        self.births: Array = np.zeros(max_series, dtype=np.int64)
        """Rises when a row changes its series: what others keep by row must start anew."""
        self._rows: dict[Key, int] = {}
        self._free: list[int] = []
        self._newest: Array = np.zeros(max_series, dtype=np.int64)  # Unix seconds, 0 = never
        self._written: Array = np.zeros(max_series, dtype=bool)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: Key) -> int | None:
        return self._rows.get(key)

    def advance(self, end_seconds: int) -> None:
        """Move the window: the new columns are missing until they are merged."""
        if self.end_seconds is not None and end_seconds != self.end_seconds:
            steps = (end_seconds - self.end_seconds) // self.step_seconds
            self._shift(steps)
            np.minimum(self._newest, end_seconds, out=self._newest)
        self.end_seconds = end_seconds
        first = end_seconds - (self.columns - 1) * self.step_seconds
        for row in np.flatnonzero(self._newest[: len(self.keys)] < first):
            self._leave(int(row))

    def _shift(self, steps: int) -> None:
        """Positive: towards the past. A clock that was set back only loses the newest columns."""
        for start in range(0, len(self.keys), _SHIFTED_ROWS):
            block = self.values[start : min(start + _SHIFTED_ROWS, len(self.keys))]
            if abs(steps) >= self.columns:
                block[:] = np.nan
            elif steps > 0:
                block[:, :-steps] = block[:, steps:].copy()
                block[:, -steps:] = np.nan
            else:
                block[:, -steps:] = block[:, :steps].copy()
                block[:, :-steps] = np.nan

    def begin(self) -> None:
        """Before the answers of one grid are merged: a row written twice is a duplicate."""
        self._written[: len(self.keys)] = False

    def merge(
        self,
        labels: list[dict[str, str]],
        grid: Grid,
        values: Array,
        oddities: Oddities,
        *,
        may_join: bool = True,
    ) -> int:
        """Write one answer (float32 (series, grid.points)) into the window.

        Only a series with a point among the newest columns may join, and only where ``may_join``.
        Of two series with the same key, the first in the order of all their labels counts, and
        the other one fills its gaps. Returns how many series joined.
        """
        assert self.end_seconds is not None
        last = self.columns - 1 - (self.end_seconds - grid.end_seconds) // self.step_seconds
        first = last - grid.points + 1
        if first < 0:
            values, first = values[:, -first:], 0
        if last < 0 or not len(labels):
            return 0
        keys = [tuple([series.get(name, "") for name in self.labels]) for series in labels]
        rows: Array = np.array([self._rows.get(key, -1) for key in keys], dtype=np.int64)
        joined = 0
        if may_join and (rows < 0).any():
            joined = self._join(labels, keys, rows, values, oddities)
        order = self._write_once(rows, first, last, values)
        order.sort(key=lambda i: (keys[i], sorted(labels[i].items())))
        for i in order:
            self._write_again(int(rows[i]), first, last, values[i], keys[i], oddities)
        return joined

    def _write_once(self, rows: Array, first: int, last: int, values: Array) -> list[int]:
        """Write all rows that come once; returns the indexes of those that were written before or
        come several times.
        """
        known = np.flatnonzero(rows >= 0)
        _, back, times = np.unique(rows[known], return_inverse=True, return_counts=True)
        once = (times[back] == 1) & ~self._written[rows[known]]
        plain = known[once]
        self.values[rows[plain], first : last + 1] = values[plain]
        self._written[rows[plain]] = True
        self._note_newest(rows[plain], last, values[plain])
        return [int(i) for i in known[~once]]

    def _write_again(
        self, row: int, first: int, last: int, points: Array, key: Key, oddities: Oddities
    ) -> None:
        window = self.values[row, first : last + 1]
        if self._written[row]:
            both = np.isfinite(window[-1]) and np.isfinite(points[-1])
            if both and last == self.columns - 1:
                oddities.add("duplicate", self.name(key))
            points = np.where(np.isnan(window), points, window)
        window[:] = points
        self._written[row] = True
        self._note_newest(np.array([row]), last, points[None])

    def _note_newest(self, rows: Array, last: int, values: Array) -> None:
        """Remember when each row had its newest point."""
        if not len(rows):
            return
        assert self.end_seconds is not None
        found = np.isfinite(values)
        back = np.argmax(found[:, ::-1], axis=1)
        at = self.end_seconds - (self.columns - 1 - last + back) * self.step_seconds
        at[~found.any(axis=1)] = 0
        self._newest[rows] = np.maximum(self._newest[rows], at)

    def _join(
        self,
        labels: list[dict[str, str]],
        keys: list[Key],
        rows: Array,
        values: Array,
        oddities: Oddities,
    ) -> int:
        """Give rows to new series in the order of their keys, as far as there is room."""
        alive = np.isfinite(values[:, -self.fresh_columns :]).any(axis=1)
        candidates = [int(i) for i in np.flatnonzero((rows < 0) & alive)]
        candidates.sort(key=lambda i: keys[i])
        joined = 0
        for i in candidates:
            key = keys[i]
            row = self._rows.get(key)
            if row is None:
                if "" in key:
                    missing = self.labels[key.index("")]
                    oddities.add("missing_label", f"{missing} of {labels[i]}")
                    continue
                row = self._take_row(key)
                if row is None:
                    oddities.add("too_many_series", self.name(key))
                    continue
                joined += 1
            rows[i] = row
        return joined

    def _take_row(self, key: Key) -> int | None:
        if not self._free and len(self.keys) >= self.max_series:
            for departed in np.flatnonzero(~self._is_fresh()):
                self._leave(int(departed))
        if self._free:
            row = heapq.heappop(self._free)
            self.keys[row] = key
        elif len(self.keys) < self.max_series:
            row = len(self.keys)
            self.keys.append(key)
        else:
            return None
        self.births[row] += 1
        self.values[row] = np.nan
        self._written[row] = False
        # It joins because it is fresh; its points, and how fresh, are written next.
        self._newest[row] = self._oldest_fresh()
        self._rows[key] = row
        return row

    def _leave(self, row: int) -> None:
        key = self.keys[row]
        if key is not None:
            del self._rows[key]
            self.keys[row] = None
            heapq.heappush(self._free, row)

    def _is_fresh(self) -> Array:
        """bool (rows in use)"""
        fresh: Array = self._newest[: len(self.keys)] >= self._oldest_fresh()
        return fresh

    def _oldest_fresh(self) -> int:
        assert self.end_seconds is not None
        return self.end_seconds - (self.fresh_columns - 1) * self.step_seconds

    def fresh_rows(self) -> Array:
        """int64: the rows of the series that have not departed, in order."""
        if self.end_seconds is None:
            return np.zeros(0, dtype=np.int64)
        taken = np.fromiter((key is not None for key in self.keys), bool, len(self.keys))
        rows: Array = np.flatnonzero(taken & self._is_fresh())
        return rows

    def newest_seconds(self) -> int:
        """Unix time of the newest point of all, 0 without any."""
        rows = self.fresh_rows()
        return int(self._newest[rows].max()) if len(rows) else 0

    def at(self, moment_seconds: int, steps: int = 1) -> Array | None:
        """float32 (rows in use): the mean of ``steps`` columns up to a moment in the window."""
        if self.end_seconds is None:
            return None
        last = self.columns - 1 - (self.end_seconds - moment_seconds) // self.step_seconds
        if last >= self.columns or last - steps + 1 < 0:
            return None
        block = self.values[: len(self.keys), last - steps + 1 : last + 1]
        found = np.isfinite(block)
        count = found.sum(axis=1)
        total = np.where(found, block, 0.0).sum(axis=1, dtype=np.float64)
        mean: Array = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        return mean

    def name(self, key: Key) -> str:
        """``{clu_name="a",group="b"}``, for messages."""
        pairs = zip(self.labels, key, strict=True)
        return "{" + ",".join(f'{label}="{value}"' for label, value in pairs) + "}"
