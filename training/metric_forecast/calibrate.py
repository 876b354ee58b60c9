"""Widens or narrows the band until it holds what it promises, on steps that training never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training.metric_forecast.data import Series, horizon_at, window_at
from training.metric_forecast.evaluate import validation_origins
from training.metric_forecast.network import LSTMForecast

ORIGINS_PER_SERIES = 8
_BATCH = 128
# Outside of these a factor says more about the sample than about the band.
_SMALLEST, _LARGEST = 0.5, 3.0
# Fewer rows than this calibrate nothing.
_ENOUGH = 100


def calibrate(network: LSTMForecast, series: Sequence[Series]) -> None:
    """Set ``network.widen`` so that below the lowest and above the highest quantile lies the share
    of truths that their names promise, over the validation part of ``series``, each family
    counting alike. Steps without enough truths keep the factor 1.
    """
    settings = network.settings
    steps = np.array(settings.judged_steps) - 1
    network.widen.fill_(1.0)
    ratios: list[np.ndarray] = []
    families: list[str] = []
    for one in series:
        origins = validation_origins(one, settings.horizon, ORIGINS_PER_SERIES)
        for start in range(0, len(origins), _BATCH):
            chunk = origins[start : start + _BATCH]
            ratios.append(_ratios(network, one, chunk, steps))
            families += [one.family] * len(chunk)
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


def _ratios(
    network: LSTMForecast, one: Series, origins: Sequence[int], steps: np.ndarray
) -> np.ndarray:
    """float64 (origins, steps, 2): how many half-bands the truth lies below and above the median.

    NaN where nothing moves or no truth is known.
    """
    settings = network.settings
    windows = np.stack([window_at(one.values, o, settings.context_length) for o in origins])
    truth = np.stack([horizon_at(one.values, o, settings.horizon) for o in origins])[:, steps]
    seasons = torch.full((len(origins), 1), one.season_length, dtype=torch.int64)
    with torch.inference_mode():
        answers = network(torch.from_numpy(windows), seasons)[0].double().numpy()[:, steps]
    median = answers[..., settings.median_index]
    apart = truth.astype(np.float64) - median
    half = np.stack([median - answers[..., 0], answers[..., -1] - median], -1)
    half[half <= 0] = np.nan
    return np.stack([-apart, apart], -1) / half


def _quantile(values: np.ndarray, weight: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    until = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(until, share * until[-1])])
