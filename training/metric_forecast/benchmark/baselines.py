"""What a forecaster must beat: simple, Prometheus' own, linear and classical methods.

Each answers one series at many origins: the steps before an origin are all it may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.metric_forecast.data import COARSE_STEP_SECONDS, Series, window_at

RIDGE_CONTEXT = 336
_RIDGE_WINDOWS_PER_SERIES = 64
# In units of each window's spread: a window that leaves every scale behind must not own the map.
_LARGEST_NORMALISED = 10.0
_ETS_CONTEXT = 2016
# The season's own equations cost more than they give beyond this length.
_LONGEST_ETS_SEASON = 24


def last_values(values: np.ndarray, origins: Sequence[int]) -> np.ndarray:
    """float64 (origins,): the newest number before each origin, NaN where there is none."""
    there = np.isfinite(values)
    newest = np.maximum.accumulate(np.where(there, np.arange(len(values)), -1))
    at = np.array([newest[origin - 1] if origin > 0 else -1 for origin in origins], dtype=int)
    return np.where(at >= 0, values[at], np.nan).astype(np.float64)


def seasonal_naive(
    values: np.ndarray, origins: Sequence[int], ahead: int, season_length: int
) -> np.ndarray:
    """float64 (origins,): the same time of the newest full day before each origin.

    ahead: steps from the last known one, 1 or more. The last value where there is no season
    (``season_length`` 0) or no number at that time.
    """
    last = last_values(values, origins)
    if season_length <= 0:
        return last
    back = season_length * -(-ahead // season_length)
    at = np.asarray(origins, dtype=int) + ahead - 1 - back
    found = np.where(at >= 0, values[np.maximum(at, 0)], np.nan)
    return np.where(np.isfinite(found), found, last).astype(np.float64)


def predict_linear(
    values: np.ndarray,
    origins: Sequence[int],
    ahead: int,
    step_seconds: int,
    range_seconds: int,
) -> np.ndarray:
    """float64 (origins,): Prometheus' ``predict_linear(metric[range], ahead steps)``.

    Least squares over the samples of the range, which ends at the last step before the origin and
    excludes its left end (as from Prometheus 3.0), carried on from there. A missing step is no
    sample. Below two samples the last value. An unknown step counts as 5 minutes.
    """
    step = step_seconds if step_seconds > 0 else COARSE_STEP_SECONDS
    number = max(1, -(-range_seconds // step))
    windows = np.stack([window_at(values, origin, number) for origin in origins])
    there = np.isfinite(windows)
    count = there.sum(1)
    # Steps relative to the evaluation time, values to the newest one: as exact as they come.
    time = np.where(there, np.arange(1 - number, 1, dtype=np.float64), 0.0)
    last = last_values(values, origins)
    level = np.where(np.isfinite(last), last, 0.0)
    value = np.where(there, windows.astype(np.float64) - level[:, None], 0.0)
    safe = np.maximum(count, 1)
    mean_time, mean_value = time.sum(1) / safe, value.sum(1) / safe
    centred = np.where(there, time - mean_time[:, None], 0.0)
    spread = (centred**2).sum(1)
    slope = (centred * value).sum(1) / np.where(spread > 0, spread, 1.0)
    line = level + mean_value + slope * (ahead - mean_time)
    return np.where(count >= 2, line, last)


class RidgeNLinear:
    """One linear map for all series from the newest steps to one step ahead.

    A window's last value is subtracted, and it is divided by its spread, before the map and added
    again after it. Fitted on the first 80% of each series only.
    """

    def __init__(self, context_length: int = RIDGE_CONTEXT, penalty: float = 1e-2) -> None:
        self.context_length, self.penalty = context_length, penalty
        self.weights: dict[int, np.ndarray] = {}

    def fit(self, series: Sequence[Series], ahead: int) -> RidgeNLinear:
        """Learn the map to ``ahead`` steps; a series too short for it teaches nothing."""
        gram = np.zeros((self.context_length, self.context_length))
        moment = np.zeros(self.context_length)
        rows = 0
        for one in series:
            part = one.values[: one.split]
            latest = len(part) - ahead
            if latest < self.context_length // 7:
                continue
            origins = np.unique(
                np.linspace(self.context_length // 7, latest, _RIDGE_WINDOWS_PER_SERIES).astype(int)
            )
            windows, last, scale = self._normalised(part, origins)
            target = (part[origins + ahead - 1] - last) / scale
            # A flat window has no scale, and its forecast is its last value by construction.
            usable = np.isfinite(target) & windows.any(1)
            windows = windows[usable]
            target = np.clip(target[usable], -_LARGEST_NORMALISED, _LARGEST_NORMALISED)
            gram += windows.T @ windows
            moment += windows.T @ target
            rows += len(windows)
        gram += self.penalty * max(rows, 1) * np.eye(self.context_length)
        self.weights[ahead] = np.linalg.solve(gram, moment)
        return self

    def predict(self, values: np.ndarray, origins: Sequence[int], ahead: int) -> np.ndarray:
        """float64 (origins,). Raises KeyError for an ``ahead`` that was not fitted."""
        windows, last, scale = self._normalised(values, np.asarray(origins, dtype=int))
        return last + scale * (windows @ self.weights[ahead])

    def _normalised(
        self, values: np.ndarray, origins: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(origins, context) with 0 for a missing step, last (origins,), scale (origins,) > 0."""
        windows = np.stack([window_at(values, int(o), self.context_length) for o in origins])
        last = last_values(values, [int(o) for o in origins])
        level = np.where(np.isfinite(last), last, 0.0)
        windows = np.nan_to_num(windows.astype(np.float64) - level[:, None], nan=0.0)
        spread = np.abs(windows).mean(1)
        flat = spread <= 1e-9 * np.abs(level) + 1e-20
        windows = np.where(flat[:, None], 0.0, windows)
        scale = np.where(flat, 1.0, spread)
        clipped = np.clip(windows / scale[:, None], -_LARGEST_NORMALISED, _LARGEST_NORMALISED)
        return clipped, last, scale


def load_auto_ets() -> Any:
    """statsforecast's AutoETS class; None where the package is not installed."""
    try:
        from statsforecast.models import AutoETS
    except ImportError:
        return None
    return AutoETS


def auto_ets(
    auto_ets_class: Any,
    values: np.ndarray,
    origins: Sequence[int],
    aheads: Sequence[int],
    season_length: int,
) -> np.ndarray:
    """float64 (origins, aheads): AutoETS fitted anew at every origin on at most a week's steps.

    Missing steps carry the value before them. A daily season above 24 steps is left out (the
    package cannot fit one); the last value where no model can be fitted.
    """
    season = season_length if 1 < season_length <= _LONGEST_ETS_SEASON else 1
    last = last_values(values, origins)
    answers = np.repeat(last[:, None], len(aheads), 1)
    for row, origin in enumerate(origins):
        known = values[max(0, origin - _ETS_CONTEXT) : origin].astype(np.float64)
        newest = np.maximum.accumulate(np.where(np.isfinite(known), np.arange(len(known)), -1))
        known = known[newest[newest >= 0]]
        if len(known) < 2 * season + 4 or known.max() == known.min():
            continue
        try:
            mean = auto_ets_class(season_length=season).forecast(y=known, h=max(aheads))["mean"]
        except (ValueError, ZeroDivisionError, RuntimeError, np.linalg.LinAlgError):
            continue
        found = np.asarray(mean, dtype=np.float64)[[ahead - 1 for ahead in aheads]]
        answers[row] = np.where(np.isfinite(found), found, answers[row])
    return answers
