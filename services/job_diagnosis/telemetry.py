"""``Telemetry``: the service's own metrics beside ``WebTelemetry``'s, in one registry."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from services.bounded_counter import BoundedCounter
from services.job_diagnosis.reading import ReadLog
from services.job_diagnosis.record import JobRecord
from services.web.telemetry import WebTelemetry

PREFIX = "presage_jobs_"
API = "job_diagnosis"
MODEL = "train_failure_rca"
UNKNOWN, HEALTHY = "unknown", "none"
_LARGEST_NAMES = 1_000
_SIZES = tuple(float(10**power) for power in range(3, 10))


class Telemetry:
    """Clusters, nodes and users that are too many share ``other``."""

    def __init__(self) -> None:
        self.web = WebTelemetry(API)
        self._received = self._counter("received_total", "Logs read, by source.", "source")
        self._log_bytes = Histogram(
            PREFIX + "log_bytes",
            "Sizes of logs as they came, unpacked.",
            buckets=_SIZES,
            registry=self.web.registry,
        )
        self._secrets = self._counter("secrets_masked_total", "Secrets masked in logs.")
        self._odd = self._counter("odd_documents_total", "What was odd and mended.", "reason")
        self._answered = self._counter(
            "answers_total", "Answered failures: diagnosed, replayed or accepted.", "kind"
        )
        self._causes = self._counter("causes_total", "Causes of diagnosed failures.", "cause")
        self._by_cluster = BoundedCounter(
            self._counter("cluster_causes_total", "Causes by cluster.", "cluster", "cause"),
            _LARGEST_NAMES,
        )
        self._by_node = BoundedCounter(
            self._counter("node_causes_total", "Causes by node.", "node", "cause"), _LARGEST_NAMES
        )
        self._by_user = BoundedCounter(
            self._counter("user_causes_total", "Causes by user.", "user", "cause"), _LARGEST_NAMES
        )
        self._errors = self._counter(
            "errors_total", "Failed attempts, each repeated.", "step", "reason"
        )
        self._lost = self._counter(
            "set_aside_total", "What no repeating helps: kept on the disk for somebody.", "step"
        )
        self._verdicts = self._counter("verdicts_total", "Verdicts of people.", "verdict")
        self._backlog = Gauge(
            PREFIX + "backlog",
            "Waiting: accepted logs (count), results to be stored and told (bytes).",
            ("queue",),
            registry=self.web.registry,
        )
        self._accepted_bytes = self._gauge("accepted_bytes", "Of accepted logs that wait.")
        self._accepted_limit = self._gauge(
            "accepted_limit_bytes", "Beyond it failures are told to come again."
        )
        self._oldest = self._gauge(
            "oldest_accepted_seconds", "Age of the oldest log that waits for its diagnosis."
        )
        for step in ("diagnose", "store", "announce"):
            self._lost.labels(step)

    def read(self, source: str, log: ReadLog) -> None:
        self._received.labels(source).inc()
        self._log_bytes.observe(log.size_bytes)
        self._secrets.inc(log.secrets)
        for reason, count in log.odd.items():
            self._odd.labels(reason).inc(count)

    def answered(self, kind: str) -> None:
        self._answered.labels(kind).inc()

    def asked(self, outcome: str, seconds: float, logs: int) -> None:
        self.web.model_asked(MODEL, outcome, seconds, logs)
        if outcome != "ok":
            self.failed("diagnose", outcome)

    def diagnosed(self, record: JobRecord) -> None:
        for cause in record.labels or (UNKNOWN if record.unknown else HEALTHY,):
            self._causes.labels(cause).inc()
            if record.cluster:
                self._by_cluster.add(1, record.cluster, cause, bounded=1)
            if record.node:
                self._by_node.add(1, record.node, cause, bounded=1)
            if record.user:
                self._by_user.add(1, record.user, cause, bounded=1)

    def failed(self, step: str, reason: str) -> None:
        self._errors.labels(step, reason).inc()

    def set_aside(self, step: str) -> None:
        self._lost.labels(step).inc()

    def judged(self, verdict: str) -> None:
        self._verdicts.labels(verdict).inc()

    def backlog(self, sizes: Mapping[str, int]) -> None:
        for queue, size in sizes.items():
            self._backlog.labels(queue).set(size)

    def accepted(self, size_bytes: int, limit_bytes: int, oldest_seconds: float) -> None:
        self._accepted_bytes.set(size_bytes)
        self._accepted_limit.set(limit_bytes)
        self._oldest.set(oldest_seconds)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(PREFIX + name, description, registry=self.web.registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, description, labels, registry=self.web.registry)
