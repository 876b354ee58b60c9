"""``ForecastLoop``: read, forecast, judge, publish, once an interval."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contract.errors import PresageError
from services.forecast_loop.config import LoopConfig
from services.forecast_loop.exposition import Exposition, Page
from services.forecast_loop.forecaster import Forecaster, QueryForecast
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.pushgateway import Pushgateway
from services.forecast_loop.query_state import QueryState
from services.forecast_loop.reading import ReadReport, StoppedError
from services.forecast_loop.remote_write import RemoteWrite
from services.forecast_loop.residual import load_state, save_state
from services.forecast_loop.series_store import SeriesStore
from services.forecast_loop.snapshot import Snapshot
from services.forecast_loop.telemetry import Telemetry
from services.problems import ProblemLog

LARGEST_SKEW_SECONDS = 2.0
"""Beyond it the windows end by Prometheus' clock, and it is said."""
LONGEST_PUBLISH_SECONDS = 30.0
"""To one outlet; less where the interval is short."""
_LOOP = "loop"
_SERIES_LOST = frozenset({"missing_label", "too_many_series"})
"""Oddities that cost a series its forecast; the others are only worth a look."""


class ForecastLoop:
    """All of the loop but signals and the HTTP port. ``clock``: Unix seconds, ours.

    A query that fails harms only itself: its old forecasts are shown until they are too old.
    """

    def __init__(
        self,
        config: LoopConfig,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        logger: logging.Logger | None = None,
    ) -> None:
        self.config = config
        settings = config.loop
        self.stop = stop or threading.Event()
        self.telemetry = Telemetry(settings.interval_seconds)
        self.first_error: PresageError | None = None
        self._clock = clock
        self._offset_seconds = 0.0
        self._logger = logger or logging.getLogger("forecast_loop")
        self._problems = ProblemLog(self._logger, settings.interval_seconds)
        self._prometheus = Prometheus(config.prometheus, self.stop)
        self._forecaster = Forecaster(config.triton, self.stop, self.telemetry.observe_batch)
        self._states = [
            QueryState(query, settings, self._prometheus, self.stop) for query in config.queries
        ]
        # An outlet that hangs must not cost the next cycles.
        timeout = min(LONGEST_PUBLISH_SECONDS, settings.interval_seconds / 2)
        self._pushgateway = (
            Pushgateway(settings.push_url, timeout_seconds=timeout) if settings.push_url else None
        )
        self._remote_write = (
            RemoteWrite(settings.remote_write_url, timeout_seconds=timeout)
            if settings.remote_write_url
            else None
        )
        self._durations: dict[str, float] = {}
        self._last_forecast_seconds: float | None = None
        self._state_lock = threading.Lock()
        self.exposition = Exposition(self.telemetry.render, self.now)
        self._load()

    def close(self) -> None:
        self._prometheus.close()
        self._forecaster.close()
        for outlet in (self._pushgateway, self._remote_write):
            if outlet is not None:
                outlet.close()

    def now(self) -> float:
        """Unix seconds by Prometheus' clock, as far as it is known."""
        return self._clock() + self._offset_seconds

    def not_ready(self) -> str | None:
        """Why no fresh forecast is served."""
        if self._last_forecast_seconds is None:
            return "no cycle has forecast anything yet"
        age = self.now() - self._last_forecast_seconds
        if age > self.config.loop.stale_after_seconds:
            return f"the newest forecast is {age:.0f} s old"
        return None

    def run(self) -> None:
        """Cycles until ``stop`` is set. They begin a fixed interval apart; missed ones are left."""
        interval = self.config.loop.interval_seconds
        begins = time.monotonic()
        while not self.stop.is_set():
            try:
                self.cycle()
            except StoppedError:
                break
            begins += interval
            late = time.monotonic() - begins
            if late > 0:
                self._report(_LOOP, "late", f"a cycle took {interval + late:.0f} s of {interval} s")
                begins += -(-late // interval) * interval
            self.stop.wait(begins - time.monotonic())

    def cycle(self, at_seconds: float | None = None) -> str:
        """One cycle: "ok", "partial" (something failed) or "failed" (nothing was forecast).

        ``at_seconds`` stands in for Prometheus' clock. Raises StoppedError.
        """
        began = time.perf_counter()
        self._durations = {"read": 0.0, "forecast": 0.0}
        self.first_error = None
        forecast = 0
        try:
            now = self._synchronise(at_seconds)
        except PresageError as error:
            # Everything else would wait for the same.
            now = self.now()
            for state in self._states:
                self._query_failed(state, error)
        else:
            for state in self._states:
                forecast += self._run_query(state, now)
        if forecast:
            self._last_forecast_seconds = now
        result = "failed" if not forecast else "partial" if self.first_error else "ok"
        self.telemetry.cycle(result)
        self.telemetry.durations(self._durations)
        self._publish(now)
        self.save()
        self._durations["all"] = time.perf_counter() - began
        self.telemetry.durations(self._durations)
        self._logger.info(
            "cycle %s: %d series in %.1f s (read %.1f, forecast %.1f, publish %.1f)",
            result,
            forecast,
            *(self._durations[stage] for stage in ("all", "read", "forecast", "publish")),
        )
        return result

    def _synchronise(self, at_seconds: float | None) -> float:
        """Prometheus' time. Raises PresageError."""
        if at_seconds is not None:
            self._offset_seconds = at_seconds - self._clock()
            return at_seconds
        skew = self._prometheus.server_time().skew_seconds
        self.telemetry.skew(skew)
        self._offset_seconds = 0.0
        if abs(skew) > LARGEST_SKEW_SECONDS:
            self._offset_seconds = skew
            self._warn(
                _LOOP,
                "clock_skew",
                f"Prometheus' clock is {skew:+.1f} s from ours; its time counts",
            )
        return self.now()

    def _run_query(self, state: QueryState, now: float) -> int:
        """Series that were forecast."""
        try:
            return self._forecast_query(state, now)
        except StoppedError:
            raise
        except PresageError as error:
            self._query_failed(state, error)
        except Exception as error:
            # A fault of ours in one query must not take the others down.
            self._logger.exception("%s: internal fault", state.query.metric)
            self._query_failed(state, PresageError(f"internal fault: {error!r}"))
        return 0

    def _forecast_query(self, state: QueryState, now: float) -> int:
        query, telemetry = state.query, self.telemetry
        signature = self._forecaster.signature()
        store = state.prepare(signature)
        telemetry.know_sources(query.metric, signature.sources)
        with self._timed("read"):
            report = state.reader.read(store, now)
        newest = store.newest_seconds()
        telemetry.read(query.metric, report.series, now - newest if newest else None)
        lost = self._oddities(query.metric, report)
        horizons = state.asked_horizons(signature)
        with self._timed("forecast"):
            forecast = self._forecaster.forecast(
                store.values,
                store.fresh_rows(),
                step_seconds=query.step_seconds,
                horizons=horizons,
                min_points=query.min_points,
            )
            with self._state_lock:
                state.take(forecast, horizons, signature.quantiles, now)
        forecast.failed.update(lost)
        self._account(state, store, forecast)
        return len(forecast.rows)

    def _account(self, state: QueryState, store: SeriesStore, forecast: QueryForecast) -> None:
        metric = state.query.metric
        self.telemetry.forecast(
            metric, len(forecast.rows), forecast.failed, forecast.sources, self.now()
        )
        if forecast.error is not None:
            reason = reason_of(forecast.error)
            self._remember(forecast.error)
            self.telemetry.part_failed(metric, reason)
            self._report(metric, reason, str(forecast.error))
        for reason, count in forecast.failed.items():
            self._report(metric, reason, f"{count} of {len(store)} series without a forecast")

    def _oddities(self, metric: str, report: ReadReport) -> Counter[str]:
        """Count and name them; returns how many series they cost a forecast, by reason."""
        lost: Counter[str] = Counter()
        for error in report.failures:
            self._remember(error)
            self.telemetry.part_failed(metric, reason_of(error))
            self._report(metric, reason_of(error), str(error))
        for reason, count in report.oddities.counts.items():
            example = report.oddities.examples[reason]
            if reason in _SERIES_LOST:
                lost[reason] = count
                self._report(metric, reason, f"{count} series are left out, such as {example}")
            else:
                self._warn(metric, reason, example, count)
        return lost

    def _publish(self, now: float) -> None:
        with self._timed("publish"):
            snapshots = [
                snapshot for state in self._states if (snapshot := state.snapshot(now)) is not None
            ]
            page = self.exposition.publish(snapshots)
            self._send(page, snapshots, now)

    def _send(self, page: Page, snapshots: list[Snapshot], now: float) -> None:
        gateway, remote = self._pushgateway, self._remote_write
        if gateway is not None:
            self._try(gateway.name, lambda: gateway.push(page))
        if remote is not None:
            own = list(self.telemetry.samples())
            self._try(remote.name, lambda: remote.write(snapshots, own, now))

    def _try(self, outlet: str, send: Callable[[], object]) -> None:
        try:
            send()
        except PresageError as error:
            self._remember(error)
            self.telemetry.publish_failed(outlet)
            self._report(outlet, error.metric_label, str(error))

    def save(self) -> None:
        """Write the residual scales, whatever the cycle is doing."""
        residuals = {state.query.metric: state.residual for state in self._states}
        with self._state_lock:
            try:
                save_state(self.config.loop.state_file, residuals)
            except OSError as error:
                self._report(_LOOP, "state_file", f"{self.config.loop.state_file}: {error}")

    def _load(self) -> None:
        residuals = {state.query.metric: state.residual for state in self._states}
        for problem in load_state(self.config.loop.state_file, residuals):
            self._warn(_LOOP, "state_file", str(problem))

    def _query_failed(self, state: QueryState, error: PresageError) -> None:
        self._remember(error)
        self.telemetry.query_failed(state.query.metric, reason_of(error))
        self._report(state.query.metric, reason_of(error), str(error))

    def _remember(self, error: PresageError) -> None:
        self.first_error = self.first_error or error

    def _warn(self, concerns: str, reason: str, message: str, count: int = 1) -> None:
        self.telemetry.warn(concerns, reason, count)
        self._report(concerns, reason, message)

    def _report(self, concerns: str, reason: str, message: str) -> None:
        self._problems.report(concerns, reason, message)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self._durations[stage] = self._durations.get(stage, 0.0) + spent


def reason_of(error: PresageError) -> str:
    """The metric label of an error; a query's says more closely what it is."""
    return str(getattr(error, "reason", error.metric_label))
