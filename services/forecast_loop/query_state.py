"""``QueryState``: what one query keeps from cycle to cycle."""

from __future__ import annotations

import threading

from clients.forecast import ForecastSignature
from contract.metric_names import RESIDUAL_HORIZON
from services.forecast_loop.config import LoopSettings, Query, seconds
from services.forecast_loop.forecaster import QueryForecast, context_seconds, model_step_seconds
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.reading import QueryReader
from services.forecast_loop.residual import Residual
from services.forecast_loop.series_store import SeriesStore
from services.forecast_loop.snapshot import ForecastTable, Snapshot


class QueryState:
    """Its window of points, its newest forecasts and the scale of their errors."""

    def __init__(
        self,
        query: Query,
        settings: LoopSettings,
        prometheus: Prometheus,
        stop: threading.Event,
    ) -> None:
        self.query = query
        self._settings = settings
        self._prometheus = prometheus
        self._stop = stop
        self.store: SeriesStore | None = None
        self.residual = self._new_residual()
        self.reader = QueryReader(query, prometheus, stop)
        self._table = ForecastTable(query, settings)

    def prepare(self, signature: ForecastSignature) -> SeriesStore:
        """The store, made for the model's context; anew when another model came with another one.

        More history than the model looks at is not kept.
        """
        step = self.query.step_seconds
        span = context_seconds(signature, step)
        if self.query.history is not None:
            span = min(span, seconds(self.query.history))
        columns = max(2, span // step)
        if self.store is None or self.store.columns != columns:
            saved = self.residual.state()
            self.residual = self._new_residual()
            self.residual.restore(saved)
            self.reader = QueryReader(self.query, self._prometheus, self._stop)
            self._table = ForecastTable(self.query, self._settings)
            self.store = SeriesStore(
                self.query.labels,
                columns=columns,
                step_seconds=step,
                max_series=self.query.max_series,
                fresh_columns=fresh_columns(self._settings, step),
            )
        return self.store

    def asked_horizons(self, signature: ForecastSignature) -> tuple[str, ...]:
        """Those of the settings, and the one that errors are measured at, if the model has it."""
        horizons = self._settings.horizons
        step = model_step_seconds(signature, self.query.step_seconds)
        has_it = step <= seconds(RESIDUAL_HORIZON) <= step * signature.horizon
        if RESIDUAL_HORIZON in horizons or not has_it or seconds(RESIDUAL_HORIZON) % step:
            return horizons
        return (*horizons, RESIDUAL_HORIZON)

    def take(
        self,
        forecast: QueryForecast,
        horizons: tuple[str, ...],
        levels: tuple[float, ...],
        now_seconds: float,
    ) -> None:
        """Judge the forecasts whose moment has come, then keep the new ones."""
        store = self.store
        assert store is not None
        assert store.end_seconds is not None
        self.residual.follow(store)
        self.residual.judge(store, max(1, forecast.step_seconds // store.step_seconds))
        if RESIDUAL_HORIZON in horizons:
            column = horizons.index(RESIDUAL_HORIZON)
            median = forecast.median[:, column]
            self.residual.expect(forecast.rows, median, store.end_seconds)
        self._table.update(store, forecast, levels, now_seconds)

    def snapshot(self, now_seconds: float) -> Snapshot | None:
        """What may be shown now; None before the first read."""
        if self.store is None:
            return None
        return self._table.snapshot(self.store, self.residual.sigma(), now_seconds)

    def _new_residual(self) -> Residual:
        return Residual(
            max_series=self.query.max_series,
            horizon_seconds=seconds(RESIDUAL_HORIZON),
            sigma_floor=self.query.sigma_floor,
        )


def fresh_columns(settings: LoopSettings, step_seconds: int) -> int:
    """Newest steps of which a series must have one; two at least, as the last may be unfinished."""
    return max(2, 1 + int(settings.stale_after_seconds // step_seconds))
