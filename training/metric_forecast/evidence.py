"""All that is known of a window without training: forecasts, how wrong they were, what they saw."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.metric_forecast.analogs import find_analogs
from training.metric_forecast.companion_branch import CompanionEvidence, Scales, companion_evidence
from training.metric_forecast.companion_evidence import Origins, regress
from training.metric_forecast.experts import Experts, between
from training.metric_forecast.settings import ForecastSettings
from training.metric_forecast.window import Window, compress, make_window

# Below this share of the level, variation is float32 rounding.
_SMALLEST_RELATIVE_SCALE = 1e-6
# Share of the window's own movement below which no error is told from zero.
_SMALLEST_ERROR = 0.02
_WORST_RECORD = 5.0
# Facts of a step ahead that are no expert's.
FACTS = 11


class Evidence(NamedTuple):
    """All that is known without training; values counted from the window's level, float32.

    level: (batch, 1); filled, mask: (batch, context_length), see ``Window``
    movement: (batch, 1), mean distance from the level
    forecasts: (batch, steps, experts), analogs last; scale: (batch, steps), the last value's error
    moves: (batch, steps), 0 where nothing has ever moved, else 1
    record: (batch, steps, experts, 2), log of the error above the best's, of all earlier origins
    and of the last day's; best: (batch, steps), the smallest error
    features: (batch, steps, features), what the decoder reads
    residuals: (batch, origins, …), the experts' signed errors, oldest first
    companions: None without them
    """

    level: Tensor
    filled: Tensor
    mask: Tensor
    movement: Tensor
    forecasts: Tensor
    scale: Tensor
    moves: Tensor
    record: Tensor
    best: Tensor
    features: Tensor
    residuals: Tensor
    companions: CompanionEvidence | None = None

    @property
    def every_forecast(self) -> Tensor:
        """(batch, steps, experts), the companions' last if there are any."""
        if self.companions is None:
            return self.forecasts
        return torch.cat([self.forecasts, self.companions.forecast.unsqueeze(-1)], -1)


@torch.no_grad()
def find_evidence(
    settings: ForecastSettings,
    series: Tensor,
    season_length: Tensor,
    ahead: Tensor,
    nearby: int,
    companions: Tensor | None = None,
) -> Evidence:
    """
    series: float32 (batch, context_length), own unit, NaN = missing
    season_length: int64 (batch, 1), steps a day, 0 = none
    ahead: int64 (steps,), rising, 1 = the first unknown step; the first ``nearby`` of them
    are at most settings.near_steps
    companions: float32 (batch, companions, context_length), each in its own unit
    """
    window = make_window(series)
    experts = Experts(settings.experts, window, season_length)
    end = torch.full_like(season_length, settings.context_length)
    plain = experts.at(end, ahead).squeeze(1)
    number = window.mask.sum(1, keepdim=True).clamp(min=1.0)
    movement = window.values.abs().sum(1, keepdim=True) / number
    floor = _SMALLEST_RELATIVE_SCALE * window.level.abs() + 1e-20
    movement = torch.maximum(movement, floor)
    # Rising: the first ``nearby`` of them are near.
    analogs = find_analogs(
        window,
        movement,
        season_length,
        settings.patches,
        ahead[:nearby],
        ahead[nearby:],
        (settings.near_steps, settings.horizon),
        settings.neighbours,
    )
    judged = origins_of(settings, window, season_length)
    judged_steps = torch.tensor(settings.judged_steps, device=ahead.device)
    mix = between(judged_steps, ahead)
    forecasts_then = experts.at(judged.origins, judged_steps)
    week, day, counts, residuals = _judge(settings, judged, forecasts_then, mix, movement)

    # The last value is the first expert: its error is the natural unit at each step ahead.
    scale = torch.maximum(torch.maximum(week[..., 0], 0.05 * movement), floor)
    unit = scale.unsqueeze(-1)

    forecasts = torch.cat([plain, analogs.median], -1)
    week, day = torch.cat([week, analogs.spread], -1), torch.cat([day, analogs.spread], -1)
    best, best_day = week.amin(-1, keepdim=True), day.amin(-1, keepdim=True)
    # Below the floor errors are rounding, and each runtime rounds its own way.
    least = torch.maximum(_SMALLEST_ERROR * unit, floor.unsqueeze(-1))
    record = torch.stack(
        [
            torch.log((week + least) / (best + least)),
            torch.log((day + least) / (best_day + least)),
        ],
        -1,
    )
    beside = None
    if companions is not None:
        flat = Scales(*(of[..., 0] for of in (unit, best, best_day, least)))
        found = regress(window, season_length, companions, judged, settings.judged_steps)
        beside = companion_evidence(found, mix, flat, window.filled[:, -1:])
    relative = compress((forecasts - window.filled[:, -1:].unsqueeze(-1)) / unit)
    day_length = season_length.to(scale.dtype)
    steps = ahead.to(scale.dtype).unsqueeze(0)
    share = torch.where(day_length > 1, steps / day_length.clamp(min=1.0), 0.0)
    known = (day_length > 1).to(scale.dtype)
    facts = [
        (torch.log(steps) / 5).expand_as(scale),
        share,
        torch.sin(2 * math.pi * share),
        torch.cos(2 * math.pi * share),
        known.expand_as(scale),
        torch.log(1 + counts[0]) / 5,
        torch.log(1 + counts[1]) / 3,
        torch.log((best.squeeze(-1) + least.squeeze(-1)) / scale),
        torch.log((best_day + least) / (best + least)).squeeze(-1),
        torch.log(scale / movement + 1e-3) / 3,
        relative.std(-1),
    ]
    plain_size = plain.shape[-1]
    features = torch.cat(
        [
            relative,
            record[..., 0].clamp(max=_WORST_RECORD),
            record[..., :plain_size, 1].clamp(max=_WORST_RECORD),
            compress(analogs.low / unit),
            compress(analogs.high / unit),
            torch.stack(facts, -1),
        ],
        -1,
    )
    return Evidence(
        level=window.level,
        filled=window.filled,
        mask=window.mask,
        movement=movement,
        forecasts=forecasts,
        scale=scale,
        moves=(scale > 2 * floor).to(scale.dtype),
        record=record,
        best=best.squeeze(-1),
        features=features,
        residuals=residuals,
        companions=beside,
    )


def _judge(
    settings: ForecastSettings, at: Origins, forecasts: Tensor, mix: Tensor, movement: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """Mean absolute errors over the window's earlier origins and over the last day's, each
    (batch, steps, experts); how many points each is of (batch, steps); and the signed errors
    (batch, origins, experts × judged), oldest first, 0 where unknown.

    forecasts: (batch, origins, judged, experts), made at those origins
    mix: (steps, judged), how the judged steps weigh at those ahead
    """
    there, recent = at.there.unsqueeze(-1), at.recent.unsqueeze(-1)
    errors = (at.truth.unsqueeze(-1) - forecasts) * there
    absolute = errors.abs()
    points, points_day = there.sum(1), (there * recent).sum(1)
    week = absolute.sum(1) / points.clamp(min=1.0)
    of_day = (absolute * recent).sum(1) / points_day.clamp(min=1.0)
    of_day = torch.where(points_day > 0.5, of_day, week)

    counts = points.squeeze(-1) @ mix.T, points_day.squeeze(-1) @ mix.T
    # In units of the last value's error: what each forecast was worth.
    unit = torch.maximum(week[..., :1], 0.05 * movement.unsqueeze(-1)).unsqueeze(1)
    signed = torch.cat([compress(errors / unit), there], -1)[:, :, list(settings.remembered)]
    return mix @ week, mix @ of_day, counts, signed.flatten(2).flip(1)


def origins_of(settings: ForecastSettings, window: Window, season_length: Tensor) -> Origins:
    """Earlier origins of the window, newest first, and what came after them."""
    device = season_length.device
    judged = torch.tensor(settings.judged_steps, device=device)
    spacing = max(1, settings.context_length // settings.judged_origins)
    stride = torch.div(season_length, 12, rounding_mode="trunc").clamp(min=1)
    stride = torch.where(season_length > 1, stride, torch.full_like(stride, spacing))
    number = torch.arange(settings.judged_origins, device=device).unsqueeze(0)
    back = 1 + number * stride
    origins = settings.context_length - back
    safe = origins.clamp(min=1)
    truth, there = window.at(origins.unsqueeze(-1) + judged - 1)
    begun = (safe.unsqueeze(-1) > window.first.unsqueeze(-1)) & (origins.unsqueeze(-1) >= 1)
    there = there * begun.to(there.dtype)
    day = torch.where(season_length > 1, season_length, torch.full_like(stride, 12 * spacing))
    recent = (back.unsqueeze(-1) <= judged + day.unsqueeze(-1)).to(there.dtype)
    return Origins(safe, truth, there, recent)
