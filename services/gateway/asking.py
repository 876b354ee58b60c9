"""``Asker``: questions to the served models, batched, with deadlines, counted.

Small requests share calls (``Batcher``) on the event loop; a large one is a call of its own in a
thread, so that reading and writing its megabytes does not hold up the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from clients import (
    AsyncLogAnomalyClient,
    AsyncMetricForecastClient,
    AsyncServerClient,
    AsyncTrainFailureRCAClient,
    CallPolicy,
    Diagnosis,
    Forecast,
    LogAnomalyClient,
    LogVerdict,
    MetricForecastClient,
    TrainFailureRCAClient,
)
from clients.results import Array
from contract.errors import DeadlineExceededError, PresageError
from services.gateway.batching import Batcher
from services.gateway.settings import GatewaySettings
from services.web.telemetry import WebTelemetry

T = TypeVar("T")
_ATTEMPTS = 3
_SHARED_ROWS = 512
"""A request of more rows is a large one."""
_THREADED_CALLS = 4
"""Large requests at a time; each works on two calls of its own."""


@dataclass(frozen=True)
class SeriesForecast:
    """Of one series. quantiles: {q: float32 (horizon,)}, the metric's own unit."""

    quantiles: dict[float, Array]
    source: str
    step_seconds: float
    model_version: str
    error: str | None = None

    @property
    def median(self) -> Array:
        return self.quantiles[0.5]


def rows_of(forecast: Forecast) -> list[SeriesForecast]:
    return [
        SeriesForecast(
            {q: values[row] for q, values in forecast.quantiles.items()},
            forecast.source[row],
            forecast.step_seconds,
            forecast.model_version,
            forecast.errors.get(row),
        )
        for row in range(len(forecast.source))
    ]


class Connections:
    """The clients of one process: a persistent gRPC connection each. Made in the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        policy = CallPolicy(
            deadline_seconds=settings.deadline_seconds,
            attempts=_ATTEMPTS,
            first_delay_seconds=0.05,
            in_flight=settings.calls_in_flight,
        )
        url = settings.url
        self.forecast = AsyncMetricForecastClient(url, policy)
        self.logs = AsyncLogAnomalyClient(url, policy)
        self.diagnose = AsyncTrainFailureRCAClient(url, policy)
        self.server = AsyncServerClient(url, policy)
        self.large_forecast = MetricForecastClient(url, policy)
        self.large_logs = LogAnomalyClient(url, policy)
        self.large_diagnose = TrainFailureRCAClient(url, policy)

    async def close(self) -> None:
        for client in (self.forecast, self.logs, self.diagnose, self.server):
            await client.close()
        for large in (self.large_forecast, self.large_logs, self.large_diagnose):
            large.close()


class Asker:
    """Of one API; several share connections. Every method raises PresageError."""

    def __init__(
        self, connections: Connections, settings: GatewaySettings, telemetry: WebTelemetry
    ) -> None:
        self.connections = connections
        self._telemetry = telemetry
        self._threads = asyncio.Semaphore(_THREADED_CALLS)
        limits: dict[str, int] = {
            "calls_in_flight": settings.calls_in_flight,
            "batch_rows": settings.batch_rows,
            "queue_rows": settings.queue_rows,
        }
        self._series: Batcher[tuple[str, float], Any, SeriesForecast] = Batcher(
            self._ask_forecast, **limits
        )
        self._lines: Batcher[None, str, LogVerdict] = Batcher(self._ask_lines, **limits)

    async def forecast(
        self, series: Sequence[Any], *, step_seconds: float, preset: str, deadline_seconds: float
    ) -> list[SeriesForecast]:
        """A bad series has an ``error``, and does not lose the others."""
        if len(series) > _SHARED_ROWS:
            return await self.in_thread(
                lambda: self.forecast_large(
                    series,
                    step_seconds=step_seconds,
                    preset=preset,
                    deadline_seconds=deadline_seconds,
                ),
                deadline_seconds,
            )
        return await self._series((preset, step_seconds), series, deadline_seconds)

    async def classify(self, lines: Sequence[str], deadline_seconds: float) -> list[LogVerdict]:
        if len(lines) > _SHARED_ROWS:
            return await self.in_thread(
                lambda: self.classify_large(lines, deadline_seconds), deadline_seconds
            )
        return await self._lines(None, lines, deadline_seconds)

    async def diagnose(
        self, logs: Sequence[str], threshold: float | None, deadline_seconds: float
    ) -> list[Diagnosis]:
        return await self._counted(
            "train_failure_rca",
            len(logs),
            self.connections.diagnose.diagnose(
                logs, threshold, on_error="skip", deadline_seconds=deadline_seconds
            ),
        )

    async def in_thread(self, work: Callable[[], T], deadline_seconds: float) -> T:
        """What is too large for the event loop. ``work`` may use the ``large_*`` clients.

        A thread that is still at work at the deadline goes on, but nobody waits for it.
        """
        until = time.monotonic() + deadline_seconds
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._threads.acquire()
        except TimeoutError:
            raise DeadlineExceededError("too many large requests were before this one") from None
        thread = asyncio.ensure_future(asyncio.to_thread(work))
        thread.add_done_callback(self._thread_ended)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                return await asyncio.shield(thread)
        except TimeoutError:
            raise DeadlineExceededError(
                "no answer in time", expected=f"an answer within {deadline_seconds:g} s"
            ) from None

    def _thread_ended(self, thread: asyncio.Future[Any]) -> None:
        self._threads.release()
        # Who stopped waiting does not want to hear of its error.
        if not thread.cancelled():
            thread.exception()

    def forecast_large(
        self, series: Sequence[Any], *, step_seconds: float, preset: str, deadline_seconds: float
    ) -> list[SeriesForecast]:
        """Blocking, for ``in_thread``."""
        return self._counted_here(
            "metric_forecast_" + preset,
            len(series),
            lambda: rows_of(
                self.connections.large_forecast.forecast(
                    series,
                    step_seconds=step_seconds,
                    preset=preset,
                    on_error="skip",
                    deadline_seconds=deadline_seconds,
                )
            ),
        )

    def classify_large(self, lines: Sequence[str], deadline_seconds: float) -> list[LogVerdict]:
        """Blocking, for ``in_thread``."""
        return self._counted_here(
            "log_anomaly",
            len(lines),
            lambda: self.connections.large_logs.classify(
                lines, on_error="skip", deadline_seconds=deadline_seconds
            ),
        )

    def diagnose_large(
        self, logs: Sequence[str], threshold: float | None, deadline_seconds: float
    ) -> list[Diagnosis]:
        """Blocking, for ``in_thread``."""
        return self._counted_here(
            "train_failure_rca",
            len(logs),
            lambda: self.connections.large_diagnose.diagnose(
                logs, threshold, on_error="skip", deadline_seconds=deadline_seconds
            ),
        )

    async def _ask_forecast(
        self, key: tuple[str, float], rows: list[Any], deadline_seconds: float
    ) -> list[SeriesForecast]:
        preset, step_seconds = key
        forecast = await self._counted(
            "metric_forecast_" + preset,
            len(rows),
            self.connections.forecast.forecast(
                rows,
                step_seconds=step_seconds,
                preset=preset,
                on_error="skip",
                deadline_seconds=deadline_seconds,
            ),
        )
        return rows_of(forecast)

    async def _ask_lines(
        self, _: None, rows: list[str], deadline_seconds: float
    ) -> list[LogVerdict]:
        return await self._counted(
            "log_anomaly",
            len(rows),
            self.connections.logs.classify(
                rows, on_error="skip", deadline_seconds=deadline_seconds
            ),
        )

    async def _counted(self, model: str, rows: int, answer: Awaitable[T]) -> T:
        started = time.perf_counter()
        outcome = "ok"
        try:
            return await answer
        except PresageError as error:
            outcome = error.metric_label
            raise
        finally:
            self._telemetry.model_asked(model, outcome, time.perf_counter() - started, rows)

    def _counted_here(self, model: str, rows: int, ask: Callable[[], T]) -> T:
        started = time.perf_counter()
        outcome = "ok"
        try:
            return ask()
        except PresageError as error:
            outcome = error.metric_label
            raise
        finally:
            self._telemetry.model_asked(model, outcome, time.perf_counter() - started, rows)
