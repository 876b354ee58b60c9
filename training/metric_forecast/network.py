"""``LSTMForecast``: experts computed and judged in the graph, weighed by a network with an LSTM.

Everything between the raw window and the forecast in the metric's own unit is inside the module,
so that the exported graph needs no client-side arithmetic:

- simple forecasts at the window's end (``experts``), and how wrong each was at earlier origins of
  the same window;
- analogies: what followed where the window looked like its end (``analogs``);
- the LSTM reads the window in segments beside the experts' signed errors of that time;
- a decoder for all steps ahead weighs the experts, adds a residual, and widens the band; three of
  them answer together.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.metric_forecast.companion_branch import CompanionBranch
from training.metric_forecast.evidence import FACTS, Evidence, find_evidence
from training.metric_forecast.experts import SEASONAL, between
from training.metric_forecast.graph import COMPANIONS, SOURCES, sources_of
from training.metric_forecast.settings import ForecastSettings
from training.metric_forecast.window import compress

_RESIDUAL_SHARE = 0.3
# In errors of the best expert.
_LARGEST_RESIDUAL = 2.0
_EXPERT_DROPOUT = 0.15
# Outweighs a record as bad as the last value's: what a day without a record is given.
_TRUSTED = 4.0


class Decoder(nn.Module):
    """The trained part: weighs the evidence."""

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, names = settings.hidden_size, settings.experts.names
        patches = len(settings.patches)
        self.size = len(names) + patches
        errors = (len(names) + 1) * len(settings.remembered)
        if settings.has_lstm:
            self.embed = nn.Linear(3 * settings.segment_length + errors, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.remember = nn.Linear(hidden, 96, bias=False)
        width = 3 * len(names) + 2 * patches + 2 * patches + FACTS
        self.read = nn.Linear(width, 96)
        self.think = nn.Linear(96, 96)
        self.decide = nn.Linear(96, self.size + len(settings.quantiles))
        self.trust = nn.Parameter(torch.tensor([3.0, 1.0]))
        self.drop = nn.Dropout(0.1)
        with torch.no_grad():
            self.decide.weight *= 0.1
            self.decide.bias.zero_()
            if settings.experts.seasonal_days == 1:
                # One day cannot be judged by the day before it, so it starts trusted.
                for i, group in enumerate(settings.experts.groups):
                    if group == SEASONAL:
                        self.decide.bias[i] = _TRUSTED
        # Last, so that the plain part starts from the same weights with it and without.
        if settings.companions:
            self.companions = CompanionBranch(len(settings.judged_steps), 96)

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
        if beside is not None:
            logit, lift = self.companions.outlook(hidden, beside)
            logit = logit - (beside.record * self.trust).sum(-1, keepdim=True)
            logits = torch.cat([logits, logit], -1)
        if self.training:
            dropped = (torch.rand_like(logits) < _EXPERT_DROPOUT).to(logits.dtype)
            logits = logits - 1e4 * dropped
        weights = torch.softmax(logits, -1)
        # Nothing has moved: the forecast is that value, to the last digit.
        unit = evidence.scale * evidence.moves
        # Where some expert is hardly ever wrong, there is little to add to it. Training has more
        # room: held to this there, it learns less (machines at 12 h: .372 against .358).
        room = unit if self.training else torch.minimum(unit, _LARGEST_RESIDUAL * evidence.best)
        residual = _RESIDUAL_SHARE * room * decided[..., self.size]
        median = (weights * evidence.every_forecast).sum(-1) + residual
        if beside is not None:
            median = median + lift * evidence.moves
        widths = F.softplus(decided[..., self.size + 1 :] - 1.0) * unit.unsqueeze(-1)
        return self._spread(median, widths), weights, residual

    def _remembered(self, evidence: Evidence) -> Tensor:
        """The LSTM's state at the window's end, (batch, hidden)."""
        settings, filled = self.settings, evidence.filled / evidence.movement
        segment = settings.segment_length
        pad = settings.segments * segment - settings.context_length
        change = F.pad(filled[:, 1:] - filled[:, :-1], (1, 0))
        columns = [compress(filled), compress(10.0 * change), evidence.mask]
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


class ForecastCore(nn.Module):
    """Several decoders of one evidence, each with its own start and batches; their mean answers.

    What one of them learnt by chance the others did not: the mean errs less than any of them.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        super().__init__()
        self.settings = settings
        # A stream each: with companions and without, the plain parts start from the same weights.
        seeds = torch.randint(2**31, (settings.members,)).tolist()
        self.members = nn.ModuleList()
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.members.append(Decoder(settings))

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Decoder``. In training each member answers its own share of the rows."""
        if self.training:
            shares = _shares(evidence, len(self.members))
            answers = [member(share) for member, share in zip(self.members, shares, strict=True)]
            return tuple(torch.cat(column) for column in zip(*answers, strict=True))
        answers = [member(evidence) for member in self.members]
        return tuple(sum(column) / len(answers) for column in zip(*answers, strict=True))


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
        # Factors of the band below and above the median, per judged step: see ``calibrate``.
        self.register_buffer("widen", torch.ones(len(settings.judged_steps), 2))

    def forward(
        self, series: Tensor, season_length: Tensor, companions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        settings = self.settings
        steps = settings.decoded_steps or tuple(range(1, settings.horizon + 1))
        ahead = torch.tensor(steps, device=series.device)
        nearby = sum(step <= settings.near_steps for step in steps)
        evidence = find_evidence(settings, series, season_length, ahead, nearby, companions)
        counted, weights, residual = self.core(evidence)
        counted = self._widened(counted, ahead)
        if settings.decoded_steps:
            every = torch.arange(1, settings.horizon + 1, device=series.device)
            counted = torch.matmul(between(ahead, every, logarithmic=False), counted)
        forecast = counted + evidence.level.unsqueeze(-1)
        empty = (evidence.mask.amax(1) < 0.5).reshape(-1, 1, 1)
        forecast = torch.where(empty, torch.full_like(forecast, math.nan), forecast)
        # A plain reshape, so that the exported graph knows its sizes.
        shape = (-1, settings.horizon, len(settings.quantiles))
        return forecast.reshape(shape), self.source(weights, evidence, residual)

    def _widened(self, counted: Tensor, ahead: Tensor) -> Tensor:
        """Quantiles (batch, steps, quantiles) moved away from the median, or towards it."""
        middle = self.settings.median_index
        judged = torch.tensor(self.settings.judged_steps, device=ahead.device)
        below, above = (between(judged, ahead) @ self.widen).unbind(1)
        sides = [below] * middle + [torch.ones_like(below)]
        sides += [above] * (len(self.settings.quantiles) - 1 - middle)
        median = counted[..., middle : middle + 1]
        return median + (counted - median) * torch.stack(sides, -1)

    def source(self, weights: Tensor, evidence: Evidence, residual: Tensor) -> Tensor:
        """What weighed most over all steps ahead: int32 (batch, 1)."""
        groups = (*self.settings.experts.groups, *(["analogs"] * len(self.settings.patches)))
        if evidence.companions is not None:
            groups = (*groups, COMPANIONS)
        moved = ((weights * evidence.every_forecast).sum(-1) - evidence.filled[:, -1:]).abs()
        own = (residual.abs() / (residual.abs() + moved + 1e-3 * evidence.scale)).mean(1)
        mean = weights.mean(1)
        shares = []
        for source in sources_of(self.settings.companions):
            columns = [i for i, group in enumerate(groups) if group == source]
            shares.append(mean[:, columns].sum(-1) * (1 - own) if columns else 0.0 * own)
        shares[SOURCES.index("lstm")] = own
        return torch.stack(shares, -1).argmax(-1, keepdim=True).to(torch.int32)


def _shares(evidence: Any, number: int) -> list[Any]:
    """Rows of a tuple of tensors, or of such tuples, in ``number`` parts."""
    columns = [
        [None] * number
        if column is None
        else _shares(column, number)
        if isinstance(column, tuple)
        else column.chunk(number)
        for column in evidence
    ]
    return [type(evidence)(*share) for share in zip(*columns, strict=True)]
