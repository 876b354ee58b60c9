"""``LSTMForecast``: experts computed and judged in the graph, weighed by a network with an LSTM.

Everything between the raw window and the forecast in the metric's own unit is inside the module,
so that the exported graph needs no client-side arithmetic:

- simple forecasts at the window's end (``experts``), and how wrong each was at earlier origins of
  the same window;
- analogies: what followed where the window looked like its end (``analogs``);
- the LSTM reads the window in segments beside the experts' signed errors of that time;
- one decoder for all steps ahead weighs the experts, adds a residual, and widens the band.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.metric_forecast.analogs import find_analogs
from training.metric_forecast.companion_branch import (
    CompanionBranch,
    CompanionEvidence,
    Scales,
    companion_evidence,
)
from training.metric_forecast.companion_evidence import Origins, regress
from training.metric_forecast.experts import Experts
from training.metric_forecast.graph import COMPANIONS, SOURCES, sources_of
from training.metric_forecast.settings import ForecastSettings
from training.metric_forecast.window import Window, make_window

# Below this share of the level, variation is float32 rounding.
_SMALLEST_RELATIVE_SCALE = 1e-6
# Share of the window's own movement below which no error is told from zero.
_SMALLEST_ERROR = 0.02
_WORST_RECORD = 5.0
_RESIDUAL_SHARE = 0.3
_GLOBALS = 11
_EXPERT_DROPOUT = 0.15


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


class ForecastCore(nn.Module):
    """The trained part, and the evidence it weighs."""

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, names = settings.hidden_size, settings.experts.names
        patches, judged = len(settings.patches), len(settings.judged_steps)
        self.size = len(names) + patches
        # The LSTM sees the errors nearest, farthest and halfway: the rest lies between.
        self.remembered = sorted({0, judged // 2, judged - 1})
        errors = (len(names) + 1) * len(self.remembered)
        if settings.has_lstm:
            self.embed = nn.Linear(3 * settings.segment_length + errors, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.remember = nn.Linear(hidden, 96, bias=False)
        width = 3 * len(names) + 2 * patches + 2 * patches + _GLOBALS
        self.read = nn.Linear(width, 96)
        self.think = nn.Linear(96, 96)
        self.decide = nn.Linear(96, self.size + len(settings.quantiles))
        self.trust = nn.Parameter(torch.tensor([3.0, 1.0]))
        self.drop = nn.Dropout(0.1)
        with torch.no_grad():
            self.decide.weight *= 0.1
            self.decide.bias.zero_()
        # Last, so that the plain part starts from the same weights with it and without.
        if settings.companions:
            self.companions = CompanionBranch(judged, 96)

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """Quantiles (batch, steps, quantiles) counted from the window's level, weights of the
        experts (batch, steps, experts), the companions' last if there are any, and the network's
        own residual (batch, steps).
        """
        hidden = self.read(evidence.features)
        if self.settings.has_lstm:
            hidden = hidden + self.remember(self._remembered(evidence)).unsqueeze(1)
        beside = evidence.companions
        if beside is not None:
            hidden = hidden + self.companions.hidden(beside)
        hidden = F.gelu(hidden)
        hidden = hidden + F.gelu(self.think(self.drop(hidden)))
        decided = self.decide(hidden)
        logits = decided[..., : self.size]
        logits = logits - (evidence.record * self.trust).sum(-1)
        forecasts = evidence.forecasts
        if beside is not None:
            logit, lift = self.companions.outlook(hidden, beside)
            logit = logit - (beside.record * self.trust).sum(-1, keepdim=True)
            logits = torch.cat([logits, logit], -1)
            forecasts = torch.cat([forecasts, beside.forecast.unsqueeze(-1)], -1)
        if self.training:
            dropped = (torch.rand_like(logits) < _EXPERT_DROPOUT).to(logits.dtype)
            logits = logits - 1e4 * dropped
        weights = torch.softmax(logits, -1)
        # Nothing has moved: the forecast is that value, to the last digit.
        unit = evidence.scale * evidence.moves
        residual = _RESIDUAL_SHARE * unit * decided[..., self.size]
        median = (weights * forecasts).sum(-1) + residual
        if beside is not None:
            median = median + lift * evidence.moves
        widths = F.softplus(decided[..., self.size + 1 :] - 1.0) * unit.unsqueeze(-1)
        return self._spread(median, widths), weights, residual

    @torch.no_grad()
    def evidence(
        self,
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
        settings = self.settings
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
        judged = self._origins(window, season_length)
        week, day, counts, residuals = self._judged(judged, experts, ahead, movement)

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
            beside = companion_evidence(found, self._between(ahead), flat, window.filled[:, -1:])
        relative = _compress((forecasts - window.filled[:, -1:].unsqueeze(-1)) / unit)
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
                _compress(analogs.low / unit),
                _compress(analogs.high / unit),
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

    def _judged(
        self, at: Origins, experts: Experts, ahead: Tensor, movement: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Mean absolute errors over the window's earlier origins and over the last day's, each
        (batch, steps, experts); how many points each is of (batch, steps); and the signed errors
        (batch, origins, experts × judged), oldest first, 0 where unknown.
        """
        judged = torch.tensor(self.settings.judged_steps, device=ahead.device)
        forecasts = experts.at(at.origins, judged)
        there, recent = at.there.unsqueeze(-1), at.recent.unsqueeze(-1)
        errors = (at.truth.unsqueeze(-1) - forecasts) * there
        absolute = errors.abs()
        points, points_day = there.sum(1), (there * recent).sum(1)
        week = absolute.sum(1) / points.clamp(min=1.0)
        of_day = (absolute * recent).sum(1) / points_day.clamp(min=1.0)
        of_day = torch.where(points_day > 0.5, of_day, week)

        between = self._between(ahead).to(week.dtype)
        counts = points.squeeze(-1) @ between.T, points_day.squeeze(-1) @ between.T
        # In units of the last value's error: what each forecast was worth.
        unit = torch.maximum(week[..., :1], 0.05 * movement.unsqueeze(-1)).unsqueeze(1)
        signed = torch.cat([_compress(errors / unit), there], -1)[:, :, self.remembered]
        return between @ week, between @ of_day, counts, signed.flatten(2).flip(1)

    def _origins(self, window: Window, season_length: Tensor) -> Origins:
        """Earlier origins of the window, newest first, and what came after them."""
        settings, device = self.settings, season_length.device
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

    def _between(self, ahead: Tensor) -> Tensor:
        """Weights (steps, judged steps) that interpolate, linearly in the logarithm of the step."""
        judged = torch.tensor(self.settings.judged_steps, device=ahead.device).to(torch.float32)
        at = torch.log(ahead.to(torch.float32)).unsqueeze(1)
        knots = torch.log(judged)
        if len(judged) == 1:
            return torch.ones_like(at)
        low, high = knots[:-1], knots[1:]
        part = ((at - low) / (high - low)).clamp(0.0, 1.0)
        # Rising by each interval's share: 1 at its own knot, falling to both sides.
        ones = torch.ones_like(at)
        return torch.cat([ones, part], 1) - torch.cat([part, torch.zeros_like(at)], 1)

    def _remembered(self, evidence: Evidence) -> Tensor:
        """The LSTM's state at the window's end, (batch, hidden)."""
        settings, filled = self.settings, evidence.filled / evidence.movement
        segment = settings.segment_length
        pad = settings.segments * segment - settings.context_length
        change = F.pad(filled[:, 1:] - filled[:, :-1], (1, 0))
        columns = [_compress(filled), _compress(10.0 * change), evidence.mask]
        shape = (-1, settings.segments, segment)
        read = [F.pad(column, (pad, 0)).reshape(shape) for column in columns]
        residuals = evidence.residuals
        missing = settings.segments - residuals.shape[1]
        if missing > 0:
            residuals = F.pad(residuals, (0, 0, missing, 0))
        states, _ = self.lstm(self.embed(torch.cat([*read, residuals], -1)))
        return states[:, -1]

    def _spread(self, median: Tensor, widths: Tensor) -> Tensor:
        """Quantiles in order. Widths are not negative, so quantiles cannot cross."""
        middle = self.settings.median_index
        quantiles = [median]
        for i in range(middle - 1, -1, -1):
            quantiles.insert(0, quantiles[0] - widths[..., i])
        for i in range(middle, len(self.settings.quantiles) - 1):
            quantiles.append(quantiles[-1] + widths[..., i])
        return torch.stack(quantiles, -1)


class LSTMForecast(nn.Module):
    """The exported network.

    series: float32 (batch, context_length), metric's own unit, NaN = missing, padded on the left
    season_length: int64 (batch, 1), steps a day, 0 = none
    → forecast: float32 (batch, horizon, quantiles), metric's own unit
    companions: float32 (batch, settings.companions, context_length), NaN = missing; with a network
    that has a branch for them only; without them it answers as if none were known
    → source: int32 (batch, 1), index into graph.sources_of(companions): what weighed most

    A window without one finite point is answered with NaN.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        self.core = ForecastCore(settings)

    def forward(
        self, series: Tensor, season_length: Tensor, companions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        settings = self.settings
        ahead = torch.arange(1, settings.horizon + 1, device=series.device)
        nearby = min(settings.near_steps, settings.horizon)
        evidence = self.core.evidence(series, season_length, ahead, nearby, companions)
        counted, weights, residual = self.core(evidence)
        forecast = counted + evidence.level.unsqueeze(-1)
        empty = (evidence.mask.amax(1) < 0.5).reshape(-1, 1, 1)
        forecast = torch.where(empty, torch.full_like(forecast, math.nan), forecast)
        # A plain reshape, so that the exported graph knows its sizes.
        shape = (-1, settings.horizon, len(settings.quantiles))
        return forecast.reshape(shape), self.source(weights, evidence, residual)

    def source(self, weights: Tensor, evidence: Evidence, residual: Tensor) -> Tensor:
        """What weighed most over all steps ahead: int32 (batch, 1)."""
        groups = (*self.settings.experts.groups, *(["analogs"] * len(self.settings.patches)))
        forecasts = evidence.forecasts
        if evidence.companions is not None:
            groups = (*groups, COMPANIONS)
            forecasts = torch.cat([forecasts, evidence.companions.forecast.unsqueeze(-1)], -1)
        moved = ((weights * forecasts).sum(-1) - evidence.filled[:, -1:]).abs()
        own = (residual.abs() / (residual.abs() + moved + 1e-3 * evidence.scale)).mean(1)
        mean = weights.mean(1)
        shares = []
        for source in sources_of(self.settings.companions):
            columns = [i for i, group in enumerate(groups) if group == source]
            shares.append(mean[:, columns].sum(-1) * (1 - own) if columns else 0.0 * own)
        shares[SOURCES.index("lstm")] = own
        return torch.stack(shares, -1).argmax(-1, keepdim=True).to(torch.int32)


def _compress(ratio: Tensor) -> Tensor:
    """Sign-preserving log: outliers of any size stay in the network's range."""
    return torch.sign(ratio) * torch.log(1 + ratio.abs())
