"""``Store``: what each collector last printed, whether that was good, and the page made of it.

A run that fails, or whose output cannot be exposed, leaves the last good output where it is, with
its age beside it, until it is older than the collector's ``max_age``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from script_exporter.config import Collector
from script_exporter.exposition import Family, OutputError, Page, SeriesKey, family, parse
from script_exporter.process import RunResult

OWN_PREFIXES = ("script_exporter_",)
OWN_NAMES = frozenset(
    {
        *("collector_health_status", "exporter_health_status", "collector_count"),
        *("script_success", "script_duration_seconds", "script_exit_code"),
        *("script_last_success_timestamp_seconds", "script_output_age_seconds", "script_series"),
        *("script_runs_total", "script_skipped_total", "script_stderr_lines_total"),
        # Prometheus writes these itself for every target.
        *("up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added"),
        *("scrape_samples_post_metric_relabeling", "ALERTS", "ALERTS_FOR_STATE"),
    }
)


@dataclass
class Record:
    """One collector's past. Times are of the store's clock (seconds since the epoch)."""

    collector: Collector
    families: list[Family] = field(default_factory=list)
    keys: set[SeriesKey] = field(default_factory=set)
    good_at: float | None = None
    ran_at: float | None = None
    success: bool | None = None
    duration_seconds: float = 0.0
    exit_code: int | None = None
    problem: str = ""
    stderr_last: str = ""
    stderr_lines: int = 0
    skipped: int = 0
    runs: Counter[str] = field(default_factory=Counter)

    @property
    def status(self) -> str:
        """As in the Go program's /health, and ``pending`` before the first run."""
        return {None: "pending", True: "ok", False: "failed"}[self.success]


class Store:
    """Thread-safe. ``series_limit`` holds for all collectors together."""

    def __init__(self, series_limit: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._series_limit = series_limit

    def configure(self, collectors: Iterable[Collector], series_limit: int) -> None:
        """Take these collectors; what an earlier one of the same name has printed stays."""
        with self._lock:
            self._series_limit = series_limit
            before = self._records
            self._records = {}
            for collector in collectors:
                record = before.get(collector.key) or Record(collector)
                record.collector = collector
                self._records[collector.key] = record

    def finished(self, collector: Collector, result: RunResult) -> str:
        """Judge a run. The problem in words, or ""."""
        with self._lock:
            record = self._records.get(collector.key)
            if record is None or record.collector != collector:
                return ""
            self._forget_old()
            reason, problem = str(result.reason), result.detail
            if result.reason == "ok":
                try:
                    self._accept(record, result.stdout)
                except OutputError as error:
                    reason, problem = error.reason, str(error)
            elif result.stderr_last:
                problem += f": {result.stderr_last}"
            record.ran_at = self._clock()
            record.success = reason == "ok"
            record.duration_seconds = result.duration_seconds
            record.exit_code = result.exit_code
            record.problem = problem
            record.stderr_last = result.stderr_last
            record.stderr_lines += result.stderr_lines
            record.runs[reason] += 1
            return problem

    def skipped(self, collector: Collector, times: int) -> None:
        """Runs that were due while an earlier one was running or waiting."""
        with self._lock:
            if (record := self._records.get(collector.key)) is not None:
                record.skipped += times

    def page(self, more: Iterable[Family] = ()) -> str:
        """Everything, as text for /metrics; ``more`` are families of the exporter's own."""
        with self._lock:
            self._forget_old()
            page = Page()
            for record in self._records.values():
                page.add(record.families)
            page.add(self._own_families())
        page.add(more)
        return page.text()

    def health(self) -> dict[str, object]:
        """The Go program's two members, and ``details`` beside them."""
        with self._lock:
            self._forget_old()
            records = dict(self._records)
            now = self._clock()
            failed = any(record.success is False for record in records.values())
            return {
                "status": "failed" if failed else "ok",
                "collectors": {key: record.status for key, record in records.items()},
                "details": {key: _details(record, now) for key, record in records.items()},
            }

    def _accept(self, record: Record, output: bytes) -> None:
        settings = record.collector.settings
        families = parse(output, series_limit=settings.max_series, constant_labels=settings.labels)
        keys = {sample.key for family in families for sample in family.samples}
        others = [other for other in self._records.values() if other is not record]
        kinds: dict[str, tuple[str, str]] = {}
        for other in others:
            for theirs in other.families:
                if theirs.kind != "untyped":
                    kinds[theirs.name] = (theirs.kind, other.collector.key)
        for mine in families:
            names = {mine.name, *(sample.name for sample in mine.samples)}
            for name in names:
                if name in OWN_NAMES or name.startswith(OWN_PREFIXES):
                    raise OutputError("duplicate", f"{name} is a metric of the exporter's own")
            kind, owner = kinds.get(mine.name, ("untyped", ""))
            if mine.kind != "untyped" and kind not in ("untyped", mine.kind):
                raise OutputError("duplicate", f"{mine.name} is a {kind} in {owner}")
        for other in others:
            if common := keys & other.keys:
                name, labels = min(common)
                raise OutputError(
                    "duplicate",
                    f"{name}{dict(labels) or ''} is exposed by {other.collector.key}; give one of "
                    "them `labels`",
                )
        total = len(keys) + sum(len(other.keys) for other in others)
        if total > self._series_limit:
            raise OutputError(
                "too_many", f"{total} series of all collectors: expected {self._series_limit}"
            )
        record.families, record.keys, record.good_at = families, keys, self._clock()

    def _forget_old(self) -> None:
        now = self._clock()
        for record in self._records.values():
            limit = record.collector.max_age_seconds
            if record.keys and record.good_at is not None and now - record.good_at > limit:
                record.families, record.keys = [], set()

    def _own_families(self) -> list[Family]:
        now = self._clock()
        records = list(self._records.values())
        ran = [record for record in records if record.success is not None]
        good = [record for record in records if record.good_at is not None]
        healthy = all(record.success for record in ran)

        def gauge(
            name: str, text: str, of: list[Record], value: Callable[[Record], float]
        ) -> Family:
            return family(name, "gauge", text, [(r.collector.labels, value(r)) for r in of])

        def counter(
            name: str, text: str, rows: Iterable[tuple[Mapping[str, str], float]]
        ) -> Family:
            return family(name, "counter", text, rows)

        return [
            gauge(
                "collector_health_status",
                "1 if the collector's newest run was good, 0 if it was not.",
                ran,
                lambda r: float(bool(r.success)),
            ),
            family(
                "exporter_health_status",
                "gauge",
                "1 if no collector's newest run failed.",
                [({}, float(healthy))],
            ),
            family(
                "collector_count",
                "gauge",
                "Collectors that are enabled.",
                [({}, float(len(records)))],
            ),
            gauge(
                "script_success",
                "1 if the newest run ended with 0 and printed what can be exposed.",
                ran,
                lambda r: float(bool(r.success)),
            ),
            gauge(
                "script_duration_seconds",
                "How long the newest run took.",
                ran,
                lambda r: r.duration_seconds,
            ),
            gauge(
                "script_exit_code",
                "Exit code of the newest run: 128 and the signal's number where a signal ended "
                "it, -1 where there is none.",
                ran,
                lambda r: float(shell_code(r.exit_code)),
            ),
            gauge(
                "script_last_success_timestamp_seconds",
                "When the output that is exposed was printed.",
                good,
                lambda r: r.good_at or 0.0,
            ),
            gauge(
                "script_output_age_seconds",
                "Age of the output that is exposed.",
                [record for record in good if record.keys],
                lambda r: now - (r.good_at or 0.0),
            ),
            gauge("script_series", "Series that are exposed.", ran, lambda r: float(len(r.keys))),
            counter(
                "script_runs_total",
                "Runs by their end: ok, exit, signal, timeout, output (too much), processes (too "
                "many), spawn, stuck, cancelled, invalid, duplicate, too_many, timestamp.",
                [
                    ({**record.collector.labels, "result": result}, float(count))
                    for record in records
                    for result, count in sorted(record.runs.items())
                ],
            ),
            counter(
                "script_skipped_total",
                "Runs that were due while an earlier one was running or waiting.",
                [(record.collector.labels, float(record.skipped)) for record in records],
            ),
            counter(
                "script_stderr_lines_total",
                "Lines on stderr; the last one is in /health.",
                [(record.collector.labels, float(record.stderr_lines)) for record in records],
            ),
        ]


def shell_code(code: int | None) -> int:
    if code is None:
        return -1
    return code if code >= 0 else 128 - code


def _details(record: Record, now: float) -> dict[str, object]:
    return {
        "script": record.collector.settings.script_path,
        "interval_seconds": record.collector.interval_seconds,
        "problem": record.problem,
        "stderr_last_line": record.stderr_last,
        "stderr_lines": record.stderr_lines,
        "exit_code": record.exit_code,
        "duration_seconds": round(record.duration_seconds, 3),
        "series": len(record.keys),
        "output_age_seconds": None if record.good_at is None else round(now - record.good_at, 1),
        "runs": dict(record.runs),
    }
