"""``ForecastTable`` keeps a query's newest forecasts; a ``Snapshot`` is what may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clients.results import Array
from contract.metric_names import exposed_label
from services.forecast_loop.config import LoopSettings, Query
from services.forecast_loop.forecaster import QueryForecast
from services.forecast_loop.series_store import Key, SeriesStore


@dataclass(frozen=True)
class Snapshot:
    """One query's forecasts that are fresh, in the order of the store's rows.

    labels: as they are exposed, in the order of each key
    median: float32 (series, horizons), the metric's own unit
    quantiles: float32 (series, horizons, quantile_levels), or None
    made_seconds: float64 (series,), Unix time by Prometheus' clock
    sigma: float32 (series,), NaN where not known yet
    expires_seconds: when the oldest of them is too old to be shown
    """

    metric: str
    labels: tuple[str, ...]
    keys: list[Key]
    horizons: tuple[str, ...]
    median: Array
    quantile_levels: tuple[float, ...]
    quantiles: Array | None
    made_seconds: Array
    sigma: Array
    timestamp_per: Literal["series", "query"]
    expires_seconds: float


class ForecastTable:
    """The newest forecast of each of the store's rows, and when it was made."""

    def __init__(self, query: Query, settings: LoopSettings) -> None:
        self._query = query
        self._settings = settings
        size = query.max_series
        self._births: Array = np.zeros(size, dtype=np.int64)
        self._median: Array = np.zeros((size, len(settings.horizons)), dtype=np.float32)
        self._quantiles: Array = np.zeros((size, len(settings.horizons), 0), dtype=np.float32)
        self._levels: tuple[float, ...] = ()
        self._made: Array = np.zeros(size)  # Unix seconds, 0 = never

    def update(
        self,
        store: SeriesStore,
        forecast: QueryForecast,
        levels: tuple[float, ...],
        made_seconds: float,
    ) -> None:
        """Take over what was forecast now; the other rows keep what they have."""
        self._made[store.births != self._births] = 0.0
        self._births[:] = store.births
        rows = forecast.rows
        shown = slice(len(self._settings.horizons))  # one more may have been asked for, unshown
        self._median[rows] = forecast.median[:, shown]
        if self._settings.quantiles:
            if levels != self._levels:
                self._levels = levels
                self._quantiles = np.full((*self._median.shape, len(levels)), np.nan, np.float32)
            self._quantiles[rows] = forecast.quantiles[:, shown]
        self._made[rows] = made_seconds

    def snapshot(self, store: SeriesStore, sigma: Array, now_seconds: float) -> Snapshot:
        """Everything that will not be too old before the next cycle, of series that still live.

        ``sigma``: float32 (max_series,). With one timestamp for the query, only the newest cycle's
        forecasts are shown: the timestamp must be true of all.
        """
        stale_after = self._settings.stale_after_seconds
        oldest = now_seconds + self._settings.interval_seconds - stale_after
        # A row that changed its series since then (read, but not forecast) is not the old one's.
        shown = (self._made >= max(oldest, 1.0)) & (self._births == store.births)
        if self._settings.timestamp_per == "query":
            shown &= self._made == self._made.max(initial=0.0)
        fresh = store.fresh_rows()
        rows = fresh[shown[fresh]].tolist()
        made = self._made[rows]
        return Snapshot(
            metric=self._query.metric,
            labels=tuple(exposed_label(label) for label in self._query.labels),
            keys=[key for row in rows if (key := store.keys[row]) is not None],
            horizons=self._settings.horizons,
            median=self._median[rows],
            quantile_levels=self._levels,
            quantiles=self._quantiles[rows] if self._settings.quantiles else None,
            made_seconds=made,
            sigma=sigma[rows],
            timestamp_per=self._settings.timestamp_per,
            expires_seconds=float(made.min()) + stale_after if rows else np.inf,
        )
