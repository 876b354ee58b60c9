"""``Telemetry``: what was told, held back and lost, by channel; their names are the settings'."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

PREFIX = "presage_notify_"


class Telemetry:
    """In ``registry``, which may be the service's own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._taken = self._counter(
            "notifications_total",
            "Notifications by channel and what became of them on arrival: waiting, grouped "
            "(told in a sum), duplicate, beyond_limit (told as a number), no_recipient.",
            "channel",
            "outcome",
        )
        self._messages = self._counter(
            "messages_total", "Messages sent: single, group or held (by rate).", "channel", "kind"
        )
        self._told = self._counter("told_total", "Notifications that the messages told.", "channel")
        self._failures = self._counter(
            "failures_total", "Messages not taken, each repeated.", "channel", "reason"
        )
        self._given_up = self._counter(
            "given_up_total", "Notifications that nobody could be told of in time.", "channel"
        )
        self._seen: set[tuple[str, str]] = set()
        self._entries = self._gauge("outbox_entries", "In the outbox.", "channel", "state")
        self._oldest = self._gauge("outbox_oldest_seconds", "Age of the oldest due.", "channel")

    def taken(self, channel: str, outcome: str) -> None:
        self._taken.labels(channel, outcome).inc()

    def sent(self, channel: str, kind: str, notifications: int) -> None:
        self._messages.labels(channel, kind).inc()
        self._told.labels(channel).inc(notifications)

    def failed(self, channel: str, reason: str) -> None:
        self._failures.labels(channel, reason).inc()

    def given_up(self, channel: str, count: int) -> None:
        self._given_up.labels(channel).inc(count)

    def outbox(self, counts: dict[tuple[str, str], int]) -> None:
        self._seen |= set(counts)
        for channel, state in self._seen.copy():
            self._entries.labels(channel, state).set(counts.get((channel, state), 0))

    def oldest(self, channel: str, age_seconds: float) -> None:
        self._oldest.labels(channel).set(age_seconds)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, description, labels, registry=self.registry)
