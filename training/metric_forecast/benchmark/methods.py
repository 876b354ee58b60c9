"""The simple methods as ``Method``s: what stands beside the model in every table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.metric_forecast.benchmark.baselines import (
    last_values,
    predict_linear,
    seasonal_naive,
)
from training.metric_forecast.benchmark.measure import Method
from training.metric_forecast.data import LEAD_SECONDS, Series

LAST = "last value"
SEASONAL = "seasonal naive"
RANGES = {"1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600}


def line_name(range_name: str) -> str:
    """``6h`` → ``predict_linear[6h]``."""
    return f"predict_linear[{range_name}]"


def lead_name(series: Sequence[Series], horizon: int) -> str:
    """``12 h``, unless the horizon is shorter for some series."""
    full = all(
        one.step_seconds <= 0 or one.lead_steps(horizon) * one.step_seconds == LEAD_SECONDS
        for one in series
    )
    return "12 h" if full else f"12 h or {horizon} steps"


def points(predict: Callable[[np.ndarray, Sequence[int], int], np.ndarray]) -> Method:
    """A method of the series' values alone, at each step ahead, as a point forecast."""

    def answer(series: Series, origins: Sequence[int], aheads: Sequence[int]) -> np.ndarray:
        columns = [predict(series.values, origins, ahead) for ahead in aheads]
        return np.stack(columns, 1)[..., None]

    return answer


def simple_methods() -> dict[str, Method]:
    """Last value, yesterday, and Prometheus' line over 1, 6 and 24 hours."""

    def yesterday(series: Series, origins: Sequence[int], aheads: Sequence[int]) -> np.ndarray:
        columns = [
            seasonal_naive(series.values, origins, ahead, series.season_length) for ahead in aheads
        ]
        return np.stack(columns, 1)[..., None]

    def line(range_seconds: int) -> Method:
        def answer(series: Series, origins: Sequence[int], aheads: Sequence[int]) -> np.ndarray:
            columns = [
                predict_linear(series.values, origins, ahead, series.step_seconds, range_seconds)
                for ahead in aheads
            ]
            return np.stack(columns, 1)[..., None]

        return answer

    last = points(lambda values, origins, ahead: last_values(values, origins))
    lines = {line_name(name): line(seconds) for name, seconds in RANGES.items()}
    return {LAST: last, SEASONAL: yesterday, **lines}
