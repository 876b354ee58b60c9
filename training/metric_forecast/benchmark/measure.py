"""Measures methods on series side by side: the same origins, the same truth, ratios to last value.

A method answers one series: (series, origins, steps ahead) → float64 (origins, steps ahead,
quantiles), where a point forecast has one quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from training.metric_forecast.benchmark.baselines import last_values
from training.metric_forecast.data import Series, horizon_at, window_at
from training.metric_forecast.evaluate import geometric_mean, validation_origins

if TYPE_CHECKING:
    from training.metric_forecast.companions import Companions
    from training.metric_forecast.network import LSTMForecast

Method = Callable[[Series, Sequence[int], Sequence[int]], np.ndarray]

_GROUPS = {"asd": "app servers", "smd": "machines", "msft_cloud": "cloud KPIs"}
_FIRST_GROUPS = ("app servers", "machines", "CloudWatch", "cloud KPIs")
_BATCH = 128


@dataclass(frozen=True)
class Measured:
    """One series. Arrays (2,): one step ahead, and at the lead, or as many as steps were asked for;
    NaN where nothing is to measure.
    """

    group: str
    origins: int
    last: np.ndarray
    errors: Mapping[str, np.ndarray]
    # Share of the truth between a method's lowest and highest quantile.
    inside: Mapping[str, np.ndarray]

    def usable(self, at: int) -> bool:
        """The last value is never wrong where nothing moves: no ratio to form."""
        return bool(self.last[at] > 0)


def group_of(series: Series) -> str:
    """The table's column: what kind of thing the series watches."""
    if "realAWSCloudwatch" in Path(series.path).parts:
        return "CloudWatch"
    return _GROUPS.get(series.family, series.family)


def ordered_groups(measured: Sequence[Measured]) -> list[str]:
    """Groups that have a series to judge: servers first, then by name."""
    there = {one.group for one in measured if one.usable(0) or one.usable(-1)}
    return [group for group in _FIRST_GROUPS if group in there] + sorted(there - {*_FIRST_GROUPS})


def network_method(
    network: LSTMForecast, companions: Companions | None = None, late: int = 0
) -> Method:
    """The network with the newest ``context_length`` steps before each origin, beside companions
    as they were ``late`` steps before it.
    """
    settings = network.settings

    def answer(series: Series, origins: Sequence[int], aheads: Sequence[int]) -> np.ndarray:
        at = [ahead - 1 for ahead in aheads]
        parts = []
        for start in range(0, len(origins), _BATCH):
            chunk = origins[start : start + _BATCH]
            windows = np.stack(
                [window_at(series.values, o, settings.context_length) for o in chunk]
            )
            seasons = torch.full((len(chunk), 1), series.season_length, dtype=torch.int64)
            inputs = [torch.from_numpy(windows), seasons]
            if companions is not None:
                beside = [
                    companions.windows(series, max(0, o - late), settings.context_length)
                    for o in chunk
                ]
                inputs.append(torch.from_numpy(np.stack(beside)))
            with torch.inference_mode():
                forecast, _ = network(*inputs)
            parts.append(forecast[:, at].double().numpy())
        answers = np.concatenate(parts)
        # The middle column is the point forecast wherever 0.5 stands among the quantiles.
        middle = settings.median_index
        return np.stack([answers[..., 0], answers[..., middle], answers[..., -1]], -1)

    return answer


def measure(
    series: Sequence[Series],
    methods: Mapping[str, Method],
    horizon: int,
    limit: int,
    *,
    aheads: Sequence[int] = (),
    progress: bool = False,
) -> list[Measured]:
    """One entry per series that has an origin with a number before it and a truth after it.

    horizon: steps the longest forecast reaches; limit: origins a series, 0 = every 12 steps;
    aheads: steps at which it is measured (none: at the first and the lead)
    """
    found = []
    for one in tqdm(series, desc="measure", unit="series", disable=not progress):
        origins = validation_origins(one, horizon, limit)
        if not origins:
            continue
        steps = aheads or (1, one.lead_steps(horizon))
        at = [ahead - 1 for ahead in steps]
        truth = np.stack([horizon_at(one.values, o, horizon)[at] for o in origins]).astype(float)
        last = np.repeat(last_values(one.values, origins)[:, None], len(at), 1)
        there = np.isfinite(truth) & np.isfinite(last)
        if not there.any():
            continue
        errors, inside = {}, {}
        for name, method in methods.items():
            answers = method(one, origins, steps)
            point = answers[..., answers.shape[-1] // 2]
            wrong = np.abs(truth - point)
            # No number is no forecast: it must not pass for a good one.
            errors[name] = _mean(np.where(np.isfinite(point), wrong, np.inf), there)
            if answers.shape[-1] > 1:
                within = (answers[..., 0] <= truth) & (truth <= answers[..., -1])
                inside[name] = _mean(within.astype(float), there)
        found.append(
            Measured(
                group=group_of(one),
                origins=int(there.any(1).sum()),
                last=_mean(np.abs(truth - last), there),
                errors=errors,
                inside=inside,
            )
        )
    return found


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Over the origins; NaN for a column where no origin is there."""
    number = there.sum(0)
    total = np.where(there, values, 0.0).sum(0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def of_group(measured: Sequence[Measured], group: str, at: int) -> list[Measured]:
    """The group's series that have a ratio one step ahead (``at`` 0) or at the lead (1)."""
    return [one for one in measured if one.group == group and one.usable(at)]


def figure(measured: Sequence[Measured], names: Sequence[str], at: int) -> float:
    """Geometric mean of the ratios; of several names (seeds) the mean of theirs. NaN for none."""
    if not measured or not names:
        return float("nan")
    return float(
        np.mean(
            [
                geometric_mean(
                    [float(one.errors[name][at]) for one in measured],
                    [float(one.last[at]) for one in measured],
                )
                for name in names
            ]
        )
    )


def interval(
    measured: Sequence[Measured], names: Sequence[str], at: int, samples: int, seed: int
) -> tuple[float, float]:
    """95% bootstrap interval of ``figure``: series are drawn anew, and seeds where several are."""
    if not measured or not names or samples < 1:
        return float("nan"), float("nan")
    logs = np.log(
        [[geometric_mean([one.errors[n][at]], [one.last[at]]) for one in measured] for n in names]
    )
    random = np.random.default_rng(seed)
    figures = []
    for _ in range(samples):
        chosen = logs[:, random.integers(len(measured), size=len(measured))]
        of_seeds = np.exp(chosen.mean(1))
        figures.append(of_seeds[random.integers(len(names), size=len(names))].mean())
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def share_better(
    measured: Sequence[Measured], names: Sequence[str], other: str, at: int
) -> tuple[float, int]:
    """(share of series where the mean over ``names`` errs less than ``other``, series)."""
    usable = [one for one in measured if one.usable(at)]
    better = [
        np.mean([one.errors[name][at] for name in names]) < one.errors[other][at] for one in usable
    ]
    return (float(np.mean(better)) if better else float("nan")), len(usable)
