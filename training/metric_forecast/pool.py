"""Training windows with their evidence, computed once: it holds nothing that is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.loop import Batch
from training.metric_forecast.companion_branch import CompanionEvidence
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import WindowSampler
from training.metric_forecast.evidence import Evidence, find_evidence
from training.metric_forecast.settings import ForecastSettings

_CHUNK = 64
# Marks the columns of what the companions say.
_BESIDE = "companions."
# Steps ahead that one chunk learns from: the first, both leads, and random ones between.
_RANDOM_STEPS = 5


class EvidencePool:
    """``size`` windows of a sampler. Half precision where the network only looks: a week of a
    window and its experts' errors is 20 KiB then.
    """

    def __init__(
        self,
        settings: ForecastSettings,
        sampler: WindowSampler,
        size: int,
        seed: tuple[int, ...],
        *,
        companions: Companions | None = None,
        progress: bool = False,
    ) -> None:
        parts: list[Batch] = []
        with tqdm(total=size, desc="look at windows", unit="window", disable=not progress) as bar:
            for number in range(-(-size // _CHUNK)):
                random = np.random.default_rng([*seed, number])
                # A stream of its own: with companions and without, the windows are the same.
                beside = np.random.default_rng([*seed, number, 1])
                parts.append(_chunk(settings, sampler, random, companions, beside))
                bar.update(_CHUNK)
        self.columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def draw(self, random: np.random.Generator, batch: int) -> Batch:
        """Random windows of the pool, as the loss wants them."""
        number = len(self.columns["truth"])
        chosen = torch.from_numpy(random.integers(number, size=batch))
        return {name: column[chosen].float() for name, column in self.columns.items()}


def evidence_of(batch: Batch) -> Evidence:
    plain = {name: batch[name] for name in Evidence._fields if name in batch}
    beside = {
        name.removeprefix(_BESIDE): column
        for name, column in batch.items()
        if name.startswith(_BESIDE)
    }
    return Evidence(**plain, companions=CompanionEvidence(**beside) if beside else None)


def _chunk(
    settings: ForecastSettings,
    sampler: WindowSampler,
    random: np.random.Generator,
    companions: Companions | None,
    aside: np.random.Generator,
) -> Batch:
    cells, *drawn = sampler.draw_cells(random, _CHUNK)
    series, target, season = (torch.from_numpy(part) for part in drawn)
    beside = None
    if companions is not None:
        windows = [
            companions.training_windows(aside, one, origin, settings.context_length)
            for one, origin in cells
        ]
        beside = torch.from_numpy(np.stack(windows))
    ahead = _steps(settings.horizon, random)
    nearby = int((ahead <= settings.near_steps).sum())
    evidence = find_evidence(settings, series, season, ahead, nearby, beside)
    # Counted as the forecasts are.
    truth = target[:, ahead - 1] - evidence.level
    half_a_day = torch.where(season > 1, torch.div(season, 2, rounding_mode="trunc"), 10**9)
    lead = half_a_day.clamp(1, settings.horizon)
    weight = torch.where(ahead <= lead, 1.0, 0.25)
    # What alerts ask, and what the next scrape shows, count twice.
    weight = weight * torch.where((ahead == 1) | (ahead == lead), 2.0, 1.0)
    columns = evidence._asdict()
    found = columns.pop("companions")
    if found is not None:
        columns |= {_BESIDE + name: column for name, column in found._asdict().items()}
    for name in ("features", "residuals", "mask"):
        columns[name] = columns[name].half()
    return {**columns, "truth": truth, "weight": weight}


def _steps(horizon: int, random: np.random.Generator) -> Tensor:
    """Rising, always as many: random ones between 1, 12 (hourly series' lead) and the horizon."""
    fixed = {step for step in (1, 12, horizon) if step <= horizon}
    wanted = min(horizon, len(fixed) + _RANDOM_STEPS)
    while len(fixed) < wanted:
        fixed.add(round(float(np.exp(random.uniform(0, np.log(horizon))))))
    return torch.tensor(sorted(fixed))
