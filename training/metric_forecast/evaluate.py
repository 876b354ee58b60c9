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
from training.metric_forecast.data import Series, horizon_at, window_at
from training.metric_forecast.graph import SOURCES
from training.metric_forecast.network import LSTMForecast

ORIGIN_EVERY_STEPS = 12
SMALLEST_RATIO = 0.002
_BATCH = 128


@dataclass(frozen=True)
class SeriesResult:
    """Mean absolute errors of one series at the lead, and how its band and experts did."""

    name: str
    family: str
    origins: int
    model: float
    lstm: float
    last: float
    seasonal: float
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
    *,
    origins_per_series: int = 0,
    progress: bool = False,
) -> list[SeriesResult]:
    """One result per series that varies in its validation part; the context ends at the origin."""
    settings = network.settings
    cells = [
        (i, origin)
        for i, one in enumerate(series)
        for origin in validation_origins(one, settings.horizon, origins_per_series)
    ]
    rows = []
    bar = tqdm(range(0, len(cells), _BATCH), desc="validate", unit="batch", disable=not progress)
    for start in bar:
        rows.append(_errors(network, series, cells[start : start + _BATCH]))
    if not rows:
        return []
    table = np.concatenate(rows)
    owner = np.array([i for i, _ in cells])
    results = []
    for i, one in enumerate(series):
        own = table[owner == i]
        own = own[np.isfinite(own[:, 0])]
        # The last value is never wrong where nothing moves: no ratio to form.
        if len(own) == 0 or own[:, 2].mean() == 0:
            continue
        results.append(
            SeriesResult(
                name=one.name,
                family=one.family,
                origins=len(own),
                model=float(own[:, 0].mean()),
                lstm=float(own[:, 1].mean()),
                last=float(own[:, 2].mean()),
                seasonal=float(own[:, 3].mean()),
                coverage=float(own[:, 4].mean()),
                sources=tuple(float((own[:, 5] == s).mean()) for s in range(len(SOURCES))),
            )
        )
    return results


def _errors(
    network: LSTMForecast, series: Sequence[Series], cells: Sequence[tuple[int, int]]
) -> np.ndarray:
    """float64 (rows, 6): errors of model, LSTM, last, seasonal; inside the band; source."""
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
        inputs = torch.from_numpy(windows), torch.from_numpy(seasons)
        forecast, source = (t.numpy() for t in network(*inputs))
        lstm, seasonal, last, _ = (t[:, 0].numpy() for t in network.core(*inputs))
    row, middle = np.arange(len(cells)), settings.median_index
    truth = ahead[row, at].astype(np.float64)
    answers = [
        forecast[row, at, middle],
        lstm[row, at, middle],
        last,
        seasonal[row, at],
    ]
    low, high = forecast[row, at, 0], forecast[row, at, -1]
    inside = np.where(np.isfinite(truth), (low <= truth) & (truth <= high), np.nan)
    return np.stack([np.abs(truth - answer) for answer in answers] + [inside, source[:, 0]], axis=1)


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
    """A table: per family of series the relative errors, band coverage and chosen experts."""
    lines = [
        f"  {'family':<26}{'series':>7}{'model':>8}{'lstm':>8}{'seasonal':>10}{'in band':>9}"
        "   lstm/seasonal/last chosen"
    ]
    for family in sorted({one.family for one in results}):
        own = [one for one in results if one.family == family]
        last = [one.last for one in own]
        shares = np.mean([one.sources for one in own], axis=0)
        lines.append(
            f"  {family:<26}{len(own):>7}"
            f"{geometric_mean([one.model for one in own], last):>8.3f}"
            f"{geometric_mean([one.lstm for one in own], last):>8.3f}"
            f"{geometric_mean([one.seasonal for one in own], last):>10.3f}"
            f"{np.mean([one.coverage for one in own]):>9.2f}"
            f"   {'/'.join(f'{share:.2f}' for share in shares)}"
        )
    return "\n".join(lines)
