"""``presage_supervisor_*``: every restart, canary and verdict, for Prometheus.

``presage_supervisor_restarts_total{model,cause}``            model is tritonserver for the server
``presage_supervisor_last_restart_timestamp_seconds{model}``  alert on it: a counter begins at 1
``presage_supervisor_recovery_seconds{model}``                how long the newest one took
``presage_supervisor_crash_loops_total{model}``               given up
``presage_supervisor_canary_seconds{model}``                  histogram, of answered canaries
``presage_supervisor_canary_failures_total{model,verdict}``
``presage_supervisor_model_up{model}``, ``presage_supervisor_ready``
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from embedded_triton.canary import Canary, Verdict

SERVER = "tritonserver"
_PREFIX = "presage_supervisor_"
_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class SupervisorMetrics:
    """A registry of its own: the process may hold other metrics. clock: Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=self.registry)

        self._restarts = counter("restarts", "Restarts of a model or the server.", "model", "cause")
        self._crash_loops = counter("crash_loops", "Given up after too many restarts.", "model")
        self._failures = counter(
            "canary_failures", "Canaries without an answer.", "model", "verdict"
        )
        self._latency = Histogram(
            _PREFIX + "canary_seconds",
            "Time of an answered canary.",
            ("model",),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._last_restart = gauge(
            "last_restart_timestamp_seconds", "Unix time of the newest restart.", "model"
        )
        self._recovery = gauge("recovery_seconds", "From noticed to serving, newest.", "model")
        self._up = gauge("model_up", "1 while the model answers.", "model")
        self._ready = gauge("ready", "1 while every model answers.")

    def restarted(self, model: str, cause: str) -> None:
        self._restarts.labels(model, _short(cause)).inc()
        self._last_restart.labels(model).set(self._clock())

    def recovered(self, model: str, seconds: float) -> None:
        self._recovery.labels(model).set(seconds)

    def crash_loop(self, model: str) -> None:
        self._crash_loops.labels(model).inc()

    def canary(self, canary: Canary) -> None:
        if canary.verdict is Verdict.ANSWERED:
            self._latency.labels(canary.model).observe(canary.seconds)
        else:
            self._failures.labels(canary.model, canary.verdict.value).inc()

    def up(self, model: str, is_up: bool) -> None:
        self._up.labels(model).set(is_up)

    def ready(self, is_ready: bool) -> None:
        self._ready.set(is_ready)

    def text(self) -> bytes:
        """In the Prometheus text format."""
        return generate_latest(self.registry)


_CAUSES = (
    *("process killed", "stopped", "not healthy", "stuck", "does not load"),
    *("ended", "crashed", "hung"),
)


def _short(cause: str) -> str:
    """A label of few values: a load's own error text would make a series of each."""
    return cause if cause in _CAUSES else "does not load"
