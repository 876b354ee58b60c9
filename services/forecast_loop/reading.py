"""``QueryReader``: brings one query's series store up to date, in requests of bounded size."""

from __future__ import annotations

import re
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from clients.results import Array
from contract.errors import (
    DeadlineExceededError,
    PresageError,
    QueryError,
    ServerUnavailableError,
)
from services.forecast_loop.config import LARGEST_OF_UNIT, Query
from services.forecast_loop.grid import Grid
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.range_answer import RangeAnswer
from services.forecast_loop.series_store import Oddities, SeriesStore

MOST_POINTS = 11_000
"""Prometheus' own limit of points a series and request."""
MOST_SAMPLES = 1_500_000
"""Of one answer: about 50 MB of JSON, and well below Prometheus' --query.max-samples."""
MOST_UNANSWERED = 3
"""Requests in vain, with all their attempts, before Prometheus is taken to be away: the timeouts of
fifty shards one after the other would last for half an hour.
"""
_SUSPECT_SHARE = 0.5
"""Of the newest values beyond what the unit allows, before the unit is suspect."""


class StoppedError(Exception):
    """The service was told to stop; what was begun is given up."""


@dataclass
class ReadReport:
    """``series``: how many have points now. ``answers``, ``failures``: of the requests."""

    series: int = 0
    answers: int = 0
    joined: int = 0
    oddities: Oddities = field(default_factory=Oddities)
    failures: list[PresageError] = field(default_factory=list)
    failed_shards: set[str] = field(default_factory=set)

    @property
    def is_hopeless(self) -> bool:
        away = (ServerUnavailableError, DeadlineExceededError)
        return sum(isinstance(error, away) for error in self.failures) >= MOST_UNANSWERED


class QueryReader:
    """Reads the whole window at first, then only what is new, and one step again that may have
    been incomplete. A shard in which a series is new is read once more as a whole: the series may
    be older than its first sight (Prometheus was away). So is a shard that failed the last time.

    Series that are scraped more often than the step are sampled: query_range gives the newest value
    before each moment. Who wants their mean asks for it: ``avg_over_time(metric[5m])``.
    """

    def __init__(self, query: Query, prometheus: Prometheus, stop: threading.Event) -> None:
        self.query = query
        self._prometheus = prometheus
        self._stop = stop
        self._read_until: int | None = None
        self._owed: set[str] = set()  # shards to be read as a whole: something of them failed
        self._shards_in_all = 1
        self._is_checked = False

    def read(self, store: SeriesStore, now_seconds: float) -> ReadReport:
        """Bring the store up to ``now_seconds`` (Prometheus' clock).

        Raises:
            QueryError: nothing to forecast: a counter, an unknown metric, an empty result, no
                series with all identifying labels, or Prometheus refused.
            ServerError: Prometheus is away, or answers nonsense.
            StoppedError
        """
        window = Grid.ending(now_seconds, store.step_seconds, store.columns)
        self._check_type()
        is_whole = self._read_until is None or store.end_seconds is None
        grid = window if is_whole else window.since(self._read_until or 0)
        store.advance(window.end_seconds)
        report = ReadReport()
        shards = self._shards(window)
        self._shards_in_all = len(shards)
        newcomers = self._merge(store, grid, shards, report)
        owed = {*self._owed, *newcomers} - report.failed_shards
        if owed and grid != window:
            self._merge(store, window, sorted(owed), report)
        if not report.answers and report.failures:
            raise report.failures[0]
        self._read_until = window.end_seconds
        self._owed = report.failed_shards
        report.series = len(store.fresh_rows())
        if not report.series and not report.failures:
            raise self._nothing(report, window)
        self._judge_unit(store, report)
        return report

    def _merge(
        self, store: SeriesStore, grid: Grid, shards: list[str], report: ReadReport
    ) -> list[str]:
        """Read the shards' grid, the newest part first; returns the shards that brought new series.

        The newest part decides which series there are: older parts only fill their past.
        """
        newcomers = []
        workers = self._prometheus.settings.concurrency
        with ThreadPoolExecutor(workers, "prometheus") as pool:
            for piece in grid.pieces(self._points_a_request(store, grid)):
                store.begin()
                is_newest = piece.end_seconds == grid.end_seconds
                jobs = deque(pool.submit(self._ask, shard, piece, report) for shard in shards)
                answered = 0
                try:
                    for shard in shards:
                        answer = jobs.popleft().result()  # forgotten once it is merged
                        if answer is None:
                            continue
                        answered += 1
                        joined = self._take(store, answer, piece, is_newest, report)
                        report.joined += joined
                        if joined:
                            newcomers.append(shard)
                finally:
                    for job in jobs:
                        job.cancel()
                report.answers += answered
                if report.is_hopeless or not answered:
                    break  # the older pieces would only be waited for in vain
        return newcomers

    def _take(
        self,
        store: SeriesStore,
        answer: RangeAnswer,
        piece: Grid,
        is_newest: bool,
        report: ReadReport,
    ) -> int:
        if answer.infinite:
            report.oddities.add("infinite", self.query.metric, answer.infinite)
        for words in answer.warnings:
            report.oddities.add("prometheus_warning", words)
        return store.merge(answer.labels, piece, answer.values, report.oddities, may_join=is_newest)

    def _ask(self, shard: str, piece: Grid, report: ReadReport) -> RangeAnswer | None:
        """None: it failed, which is in the report, or others failed too often to try."""
        if self._stop.is_set():
            raise StoppedError
        if report.is_hopeless:
            report.failed_shards.add(shard)
            return None
        try:
            return self._prometheus.query_range(self.query.with_matcher(shard), piece)
        except PresageError as error:
            report.failures.append(error)
            report.failed_shards.add(shard)
            return None

    def _points_a_request(self, store: SeriesStore, grid: Grid) -> int:
        """How much of the grid one request may ask for, as far as the series can be counted."""
        series = len(store)
        if grid.points * max(series, 1) > MOST_SAMPLES or not series:
            try:
                series = self._prometheus.count(self.query.with_matcher(""), grid.end_seconds)
            except PresageError:  # too much even to be counted; the reads will say what is wrong
                series = max(series, self.query.max_series)
        a_shard = max(1, -(-series // self._shards_in_all))
        return min(MOST_POINTS, max(1, MOST_SAMPLES // a_shard))

    def _shards(self, window: Grid) -> list[str]:
        """Matchers that together find every series once; the last one those without the label."""
        label = self.query.shard_by
        if label is None:
            return [""]
        selector = self.query.with_matcher("") if self.query.selector else None
        values = self._prometheus.label_values(label, selector, window)
        size = self.query.shard_values
        shards = []
        for start in range(0, len(values), size):
            pattern = "|".join(re.escape(value) for value in values[start : start + size])
            shards.append(f'{label}=~"{_quoted(pattern)}"')
        return [*shards, f'{label}=""']

    def _check_type(self) -> None:
        """Raises QueryError for a counter: its forecast would say nothing but that it grows."""
        selector = self.query.selector
        if self._is_checked or self.query.allow_counter or selector is None:
            return
        name = selector[0]
        kind = self._prometheus.metric_type(name)
        if kind == "counter" or (not kind and name.endswith(("_total", "_bucket"))):
            raise QueryError(
                f"{name} is a counter",
                reason="counter",
                where=f"queries.{self.query.metric}.expr",
                expected="a gauge",
                got="a counter by its metadata" if kind else "a counter by its name",
                next_command=f'ask for its rate: expr = "rate({self.query.expr}[5m])"; '
                "or set allow_counter = true",
            )
        self._is_checked = True

    def _nothing(self, report: ReadReport, window: Grid) -> QueryError:
        where = f"queries.{self.query.metric}.expr"
        missing = report.oddities.counts["missing_label"]
        if missing:
            return QueryError(
                f"none of {missing} series has all identifying labels",
                reason="missing_label",
                where=f"queries.{self.query.metric}.labels",
                expected=", ".join(self.query.labels),
                got=f"no {report.oddities.examples['missing_label']}",
            )
        selector = self.query.selector
        if selector is not None and not self._prometheus.knows(selector[0], window):
            return QueryError(
                f"Prometheus knows no metric {selector[0]}",
                reason="unknown_metric",
                where=where,
                next_command="is its target scraped? is the name right?",
            )
        return QueryError(
            "no series has points now",
            reason="empty_result",
            where=where,
            got=f"an empty result for {self.query.expr}",
        )

    def _judge_unit(self, store: SeriesStore, report: ReadReport) -> None:
        suspicion = unit_suspicion(self.query, store.values[store.fresh_rows(), -1])
        if suspicion:
            report.oddities.add("unit_suspect", suspicion)


def unit_suspicion(query: Query, newest: Array) -> str | None:
    """Why the values (any shape) do not look like the query's unit, or None."""
    values = newest[np.isfinite(newest)]
    largest = LARGEST_OF_UNIT.get(query.unit)
    if largest is None or not len(values):
        return None
    beyond = float((values > largest).mean())
    if beyond >= _SUSPECT_SHARE:
        return f"{beyond:.0%} of the values exceed {largest:g}: is {query.metric} no {query.unit}?"
    if query.unit == "percent" and query.threshold is not None and query.threshold > 1.5:
        highest = float(values.max())
        if 0 < highest <= LARGEST_OF_UNIT["ratio"] and len(values) > 1:
            return f"no value exceeds {highest:.3g}: is {query.metric} a ratio, not percent?"
    return None


def _quoted(pattern: str) -> str:
    """A regular expression as it stands between PromQL's double quotes."""
    return pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
