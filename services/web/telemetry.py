"""``WebTelemetry``: rate, errors, duration by route and model; in flight; refusals by reason."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "presage_web_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)


class WebTelemetry:
    """In a registry of its own; every label has few values: routes are patterns."""

    def __init__(self, api: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.api = api
        self.registry = CollectorRegistry()
        self._requests = Counter(
            PREFIX + "requests_total",
            "Answered requests.",
            ("api", "method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            PREFIX + "request_seconds",
            "From the first header to the last byte of the answer.",
            ("api", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            PREFIX + "refused_total",
            "Refused or failed requests by reason.",
            ("api", "reason"),
            registry=self.registry,
        )
        self._model_calls = Counter(
            PREFIX + "model_calls_total",
            "Questions to a model by outcome (ok, or the error's label).",
            ("api", "model", "outcome"),
            registry=self.registry,
        )
        self._model_seconds = Histogram(
            PREFIX + "model_seconds",
            "Waiting for a model's answer.",
            ("api", "model"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Counter(
            PREFIX + "model_rows_total",
            "Series, lines or logs asked about.",
            ("api", "model"),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            PREFIX + "in_flight", "Requests being answered.", ("api",), registry=self.registry
        ).labels(api)
        self.in_flight_limit = Gauge(
            PREFIX + "in_flight_limit",
            "Answered at a time; more are refused.",
            ("api",),
            registry=self.registry,
        ).labels(api)

    def answered(self, method: str, route: str, status: int, seconds: float, reason: str) -> None:
        self._requests.labels(self.api, method, route, str(status)).inc()
        self._seconds.labels(self.api, route).observe(seconds)
        if reason:
            self._refused.labels(self.api, reason).inc()

    def model_asked(self, model: str, outcome: str, seconds: float, rows: int) -> None:
        self._model_calls.labels(self.api, model, outcome).inc()
        self._model_seconds.labels(self.api, model).observe(seconds)
        self._rows.labels(self.api, model).inc(rows)

    def render(self) -> bytes:
        text: bytes = generate_latest(self.registry)
        return text
