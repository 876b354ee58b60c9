"""Widens or narrows the band until it holds what it promises, on steps that training never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.metric_forecast.benchmark.measure import network_method
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import Series, horizon_at
from training.metric_forecast.evaluate import validation_origins
from training.metric_forecast.network import LSTMForecast

ORIGINS_PER_SERIES = 8
# Outside of these a factor says more about the sample than about the band.
_SMALLEST, _LARGEST = 0.5, 3.0
# Fewer rows than this calibrate nothing.
_ENOUGH = 100


def calibrate(
    network: LSTMForecast, series: Sequence[Series], companions: Companions | None = None
) -> None:
    """Set ``network.widen`` so that below the lowest and above the highest quantile lies the share
    of truths that their names promise, over the validation part of ``series``, each family
    counting alike. Steps without enough truths keep the factor 1.
    """
    settings = network.settings
    steps = settings.judged_steps
    network.widen.fill_(1.0)
    answer = network_method(network, companions)
    ratios: list[np.ndarray] = []
    families: list[str] = []
    for one in series:
        origins = validation_origins(one, settings.horizon, ORIGINS_PER_SERIES)
        if not origins:
            continue
        ahead = np.stack([horizon_at(one.values, o, settings.horizon) for o in origins])
        truth = ahead[:, np.array(steps) - 1].astype(np.float64)
        ratios.append(half_bands(answer(one, origins, steps), truth))
        families += [one.family] * len(origins)
    if not ratios:
        return
    table = np.concatenate(ratios)
    weight = np.array([1 / families.count(family) for family in families])
    outer = settings.quantiles[0], 1 - settings.quantiles[-1]
    for knot in range(len(steps)):
        for side in range(2):
            column = table[:, knot, side]
            there = np.isfinite(column)
            if there.sum() >= _ENOUGH:
                factor = _quantile(column[there], weight[there], 1 - outer[side])
                network.widen[knot, side] = float(np.clip(factor, _SMALLEST, _LARGEST))


def half_bands(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """float64 (…, 2): how many half-bands the truth lies below and above the median; NaN where
    nothing moves or no truth is known.

    answers: float64 (…, 3), lowest quantile, median, highest; truth: float64 (…)
    """
    low, median, high = answers[..., 0], answers[..., 1], answers[..., 2]
    half = np.stack([median - low, high - median], -1)
    half[half <= 0] = np.nan
    apart = truth - median
    return np.stack([-apart, apart], -1) / half


def _quantile(values: np.ndarray, weight: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    until = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(until, share * until[-1])])
