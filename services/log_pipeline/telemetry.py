"""``Telemetry``: the pipeline's own metrics, bounded in cardinality, in a registry of their own."""

from __future__ import annotations

from collections.abc import Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from services.bounded_counter import BoundedCounter
from services.log_pipeline.classifier import LineClassifier

PREFIX = "presage_log_"
_LARGEST_SOURCES = 200
_LARGEST_TEMPLATES = 1_000


class Telemetry:
    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._lines = BoundedCounter(
            self._counter("lines_total", "Lines by source and answer.", "source", "label"),
            _LARGEST_SOURCES,
        )
        self._anomalies = BoundedCounter(
            self._counter(
                "anomalies_total", "Anomalies by source and template.", "source", "template"
            ),
            _LARGEST_TEMPLATES,
        )
        self._odd = self._counter("odd_lines_total", "What was odd and mended.", "reason")
        self._told_odd: dict[str, int] = {}
        self._requests = self._counter("requests_total", "Shipped requests.", "status")
        self._outlet_errors = self._counter(
            "outlet_errors_total", "Failed deliveries, each repeated.", "outlet"
        )
        self._replayed = self._counter(
            "replayed_total", "Lines delivered again after a crash, at the most."
        )
        self._classifier_errors = self._counter(
            "classifier_errors_total", "Times the server did not answer, each repeated.", "reason"
        )
        self._backlog = self._gauge("backlog_bytes", "Acknowledged and not delivered yet.")
        self._backlog_limit = self._gauge(
            "backlog_limit_bytes", "Beyond it shippers are told to come again."
        )
        self._delivered_at = self._gauge(
            "last_delivery_timestamp_seconds",
            "When lines were last delivered, or there were none to deliver, Unix time.",
        )
        self._entries = self._gauge("cache_entries", "Remembered, by kind.", "kind")
        self._asked = self._gauge("asked", "Questions to the server since start.")
        self._masked = self._gauge("masked", "Lines whose key was not remembered, since start.")
        self._read = self._gauge("classified", "Lines classified since start.")

    def render(self) -> bytes:
        text: bytes = generate_latest(self.registry)
        return text

    def lines(self, source: str, label: str, count: int) -> None:
        self._lines.add(count, source, label, bounded=1)

    def anomalies(self, source: str, template: str, count: int) -> None:
        self._anomalies.add(count, source, template, bounded=2)

    def odd(self, total: Mapping[str, int]) -> None:
        """``total``: counts since start, which only grow."""
        for reason, count in dict(total).items():
            self._odd.labels(reason).inc(count - self._told_odd.get(reason, 0))
            self._told_odd[reason] = count

    def request(self, status: int) -> None:
        self._requests.labels(str(status)).inc()

    def outlet_failed(self, outlet: str) -> None:
        self._outlet_errors.labels(outlet).inc()

    def classifier_failed(self, reason: str) -> None:
        self._classifier_errors.labels(reason).inc()

    def odd_spool(self) -> None:
        self._odd.labels("spool").inc()

    def replayed(self, count: int) -> None:
        self._replayed.inc(count)

    def backlog(self, size_bytes: int) -> None:
        self._backlog.set(size_bytes)

    def backlog_limit(self, size_bytes: int) -> None:
        self._backlog_limit.set(size_bytes)

    def delivered(self) -> None:
        """Now: nothing that was acknowledged before is waiting, or some of it went out."""
        self._delivered_at.set_to_current_time()

    def classifier(self, classifier: LineClassifier) -> None:
        keys, forms = classifier.entries
        self._entries.labels("key").set(keys)
        self._entries.labels("masked").set(forms)
        self._asked.set(classifier.look_ups.asked)
        self._masked.set(classifier.look_ups.masked)
        self._read.set(classifier.look_ups.lines)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, description, labels, registry=self.registry)
