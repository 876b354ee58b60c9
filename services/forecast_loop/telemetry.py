"""``Telemetry``: the loop's own metrics, in a registry of their own."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator, Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from contract import metric_names as names

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """What happened, said in the loop's words; ``render`` is the text for Prometheus."""

    def __init__(self, interval_seconds: float) -> None:
        # A creation time a counter would double their lines, and no rule asks for it.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self.registry = registry
        query, reason = ["metric"], ["metric", "reason"]
        self._series = Gauge(
            names.LOOP_SERIES,
            "Series of the newest cycle, by what became of them.",
            ["metric", "state"],
            registry=registry,
        )
        self._series_failed = Counter(
            names.LOOP_SERIES_FAILED_TOTAL, "Series without a forecast.", reason, registry=registry
        )
        self._query_errors = Counter(
            names.LOOP_QUERY_ERRORS_TOTAL, "Queries that gave nothing.", reason, registry=registry
        )
        self._warnings = Counter(
            names.LOOP_WARNINGS_TOTAL, "What was odd and served all the same.", reason,
            registry=registry,
        )  # fmt: skip
        self._last_success = Gauge(
            names.LOOP_LAST_SUCCESS,
            "End of the newest cycle that forecast at least one series, Unix time.",
            query,
            registry=registry,
        )
        self._lag = Gauge(
            names.LOOP_LAG, "Age of the newest point forecast from.", query, registry=registry
        )
        self._duration = Gauge(
            names.LOOP_CYCLE_DURATION, "Of the newest cycle, by stage.", ["stage"],
            registry=registry,
        )  # fmt: skip
        self._cycles = Counter(
            names.LOOP_CYCLES_TOTAL, "Cycles by result.", ["result"], registry=registry
        )
        Gauge(names.LOOP_INTERVAL, "Between two cycles.", registry=registry).set(interval_seconds)
        self._latency = Histogram(
            names.LOOP_TRITON_LATENCY,
            "Of one batch over the wire.",
            ["model"],
            buckets=_LATENCIES,
            registry=registry,
        )
        self._sources = Gauge(
            names.LOOP_FALLBACK_RATIO,
            "Share of the series that each expert of the model answered.",
            ["metric", "source"],
            registry=registry,
        )
        self._publish_errors = Counter(
            names.LOOP_PUBLISH_ERRORS_TOTAL, "Failed pushes and writes.", ["outlet"],
            registry=registry,
        )  # fmt: skip
        self._skew = Gauge(
            names.LOOP_CLOCK_SKEW, "Prometheus' clock minus the loop's.", registry=registry
        )
        for result in ("ok", "partial", "failed"):
            self._cycles.labels(result)

    def render(self) -> bytes:
        text: bytes = generate_latest(self.registry)
        return text

    def samples(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """(name, labels, value) of each own metric, for outlets that take no text."""
        for family in self.registry.collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def observe_batch(self, model: str, seconds: float) -> None:
        self._latency.labels(model).observe(seconds)

    def read(self, metric: str, series: int, lag_seconds: float | None) -> None:
        self._series.labels(metric, "read").set(series)
        if lag_seconds is not None:
            self._lag.labels(metric).set(lag_seconds)

    def forecast(
        self,
        metric: str,
        made: int,
        failed: Mapping[str, int],
        sources: Counts[str],
        now_seconds: float,
    ) -> None:
        self._series.labels(metric, "forecast").set(made)
        self._series.labels(metric, "failed").set(sum(failed.values()))
        for reason, count in failed.items():
            self._series_failed.labels(metric, reason).inc(count)
        answered = sources.total()
        for source, count in sources.items():
            self._sources.labels(metric, source).set(count / answered)
        if made:
            self._last_success.labels(metric).set(now_seconds)

    def query_failed(self, metric: str, reason: str) -> None:
        self._query_errors.labels(metric, reason).inc()
        for state in ("read", "forecast", "failed"):
            self._series.labels(metric, state).set(0)

    def know_sources(self, metric: str, sources: tuple[str, ...]) -> None:
        """Every expert has a share, if only 0: one that is not asked must not keep its last."""
        for source in sources:
            self._sources.labels(metric, source).set(0.0)

    def part_failed(self, metric: str, reason: str) -> None:
        """A shard, or batches: what became of the query's series is counted elsewhere."""
        self._query_errors.labels(metric, reason).inc()

    def warn(self, metric: str, reason: str, count: int = 1) -> None:
        self._warnings.labels(metric, reason).inc(count)

    def skew(self, seconds: float) -> None:
        self._skew.set(seconds)

    def publish_failed(self, outlet: str) -> None:
        self._publish_errors.labels(outlet).inc()

    def cycle(self, result: str) -> None:
        self._cycles.labels(result).inc()

    def durations(self, seconds: Mapping[str, float]) -> None:
        """Of a cycle's stages; those that end after its page is rendered are shown on the next."""
        for stage, spent in seconds.items():
            self._duration.labels(stage).set(spent)
