"""Judges a forecaster on the validation part of each series against last value and yesterday.

Error of a series = MAE(model) / MAE(last value) at the lead (12 hours, at most the horizon);
over series the geometric mean, each ratio floored, constant series left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from contract.manifest import Quality
from training.metric_forecast.benchmark.baselines import last_values, seasonal_naive
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import Series, horizon_at, window_at
from training.metric_forecast.graph import SOURCES, sources_of
from training.metric_forecast.network import LSTMForecast

ORIGIN_EVERY_STEPS = 12
SMALLEST_RATIO = 0.002
_BATCH = 128


@dataclass(frozen=True)
class SeriesResult:
    """Mean absolute errors of one series at the lead, and how its band and sources did."""

    name: str
    family: str
    origins: int
    model: float
    last: float
    seasonal: float
    # One step ahead: the model, and the last value.
    first: float
    last_first: float
    coverage: float
    sources: tuple[float, ...]


def validation_origins(series: Series, horizon: int, limit: int) -> list[int]:
    """Origins in the last 20%, every 12 steps (denser if fewer than 10), at most ``limit``."""
    first, end = series.split, len(series.values) - series.lead_steps(horizon)
    if end < first:
        return []
    every = max(1, min(ORIGIN_EVERY_STEPS, (end - first) // 10))
    origins = list(range(first, end + 1, every))
    if limit and len(origins) > limit:
        chosen = np.linspace(0, len(origins) - 1, limit).round().astype(int)
        origins = [origins[i] for i in chosen]
    return origins


def evaluate(
    network: LSTMForecast,
    series: Sequence[Series],
    companions: Companions | None = None,
    *,
    origins_per_series: int = 0,
    progress: bool = False,
) -> list[SeriesResult]:
    """One result per series that varies in its validation part; the context ends at the origin."""
    horizon = network.settings.horizon
    origins = [validation_origins(one, horizon, origins_per_series) for one in series]
    cells = [(i, origin) for i, own in enumerate(origins) for origin in own]
    rows = []
    bar = tqdm(range(0, len(cells), _BATCH), desc="validate", unit="batch", disable=not progress)
    for start in bar:
        rows.append(_answers(network, series, cells[start : start + _BATCH], companions))
    if not rows:
        return []
    table = np.concatenate(rows)
    owner = np.array([i for i, _ in cells])
    results = []
    for i, one in enumerate(series):
        lead, own = one.lead_steps(horizon), table[owner == i]
        result = _result(one, origins[i], lead, own, len(sources_of(network.settings.companions)))
        if result is not None:
            results.append(result)
    return results


def _answers(
    network: LSTMForecast,
    series: Sequence[Series],
    cells: Sequence[tuple[int, int]],
    companions: Companions | None,
) -> np.ndarray:
    """float64 (rows, 7): median one step ahead and truth; median, low, high and truth at the lead;
    source."""
    settings = network.settings
    windows = np.stack(
        [window_at(series[i].values, origin, settings.context_length) for i, origin in cells]
    )
    ahead = np.stack(
        [horizon_at(series[i].values, origin, settings.horizon) for i, origin in cells]
    )
    seasons = np.array([[series[i].season_length] for i, _ in cells], dtype=np.int64)
    at = np.array([series[i].lead_steps(settings.horizon) - 1 for i, _ in cells])
    with torch.inference_mode():
        inputs = [torch.from_numpy(windows), torch.from_numpy(seasons)]
        if companions is not None:
            beside = [companions.windows(series[i], o, settings.context_length) for i, o in cells]
            inputs.append(torch.from_numpy(np.stack(beside)))
        forecast, source = (t.numpy() for t in network(*inputs))
    row, middle = np.arange(len(cells)), settings.median_index
    columns = [
        forecast[:, 0, middle],
        ahead[:, 0],
        forecast[row, at, middle],
        forecast[row, at, 0],
        forecast[row, at, -1],
        ahead[row, at],
        source[:, 0],
    ]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def _result(
    one: Series, origins: Sequence[int], lead: int, own: np.ndarray, sources: int
) -> SeriesResult | None:
    """None: no origin with a truth, or nothing moves (the last value is never wrong there)."""
    known = np.isfinite(own[:, 5])
    last = last_values(one.values, origins)
    error_of_last = np.abs(own[:, 5] - last)
    if not known.any() or error_of_last[known].mean() == 0:
        return None
    yesterday = seasonal_naive(one.values, origins, lead, one.season_length)
    inside = (own[:, 3] <= own[:, 5]) & (own[:, 5] <= own[:, 4])
    return SeriesResult(
        name=one.name,
        family=one.family,
        origins=int(known.sum()),
        model=float(np.abs(own[:, 5] - own[:, 2])[known].mean()),
        last=float(error_of_last[known].mean()),
        seasonal=float(np.abs(own[:, 5] - yesterday)[known].mean()),
        first=float(np.nanmean(np.abs(own[:, 1] - own[:, 0]))),
        last_first=float(np.nanmean(np.abs(own[:, 1] - last))),
        coverage=float(inside[known].mean()),
        sources=tuple(float((own[known, 6] == s).mean()) for s in range(sources)),
    )


def geometric_mean(errors: Sequence[float], baselines: Sequence[float]) -> float:
    """Geometric mean of error ratios, each floored (a baseline of 0 with an error: ratio 1e3)."""
    ratios = [
        max(SMALLEST_RATIO, error / base if base > 0 else (1e3 if error > 0 else 1.0))
        for error, base in zip(errors, baselines, strict=True)
    ]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")


def relative_error(results: Sequence[SeriesResult], split: str) -> list[Quality]:
    """MAE relative to last value, beside 1 (last value) and beside seasonal naive's own figure."""
    if not results:
        return []
    last = [one.last for one in results]
    value = geometric_mean([one.model for one in results], last)
    rows = sum(one.origins for one in results)
    seasonal = geometric_mean([one.seasonal for one in results], last)
    return [
        Quality(
            metric="relative MAE",
            value=value,
            baseline=baseline,
            baseline_value=figure,
            higher_is_better=False,
            rows=rows,
            split=split,
        )
        for baseline, figure in (("last value", 1.0), ("seasonal naive", seasonal))
    ]


def describe_families(results: Sequence[SeriesResult]) -> str:
    """A table: per family of series the relative errors, band coverage and sources."""
    read_beside = any(len(one.sources) > len(SOURCES) for one in results)
    lines = [
        f"  {'family':<26}{'series':>7}{'one step':>10}{'lead':>8}{'seasonal':>10}{'in band':>9}"
        f"   {'/'.join(sources_of(read_beside))} weighed most"
    ]
    for family in sorted({one.family for one in results}):
        own = [one for one in results if one.family == family]
        last = [one.last for one in own]
        moving = [one for one in own if one.last_first > 0]
        first = geometric_mean([one.first for one in moving], [one.last_first for one in moving])
        shares = np.mean([one.sources for one in own], axis=0)
        lines.append(
            f"  {family:<26}{len(own):>7}{first:>10.3f}"
            f"{geometric_mean([one.model for one in own], last):>8.3f}"
            f"{geometric_mean([one.seasonal for one in own], last):>10.3f}"
            f"{np.mean([one.coverage for one in own]):>9.2f}"
            f"   {'/'.join(f'{share:.2f}' for share in shares)}"
        )
    return "\n".join(lines)
