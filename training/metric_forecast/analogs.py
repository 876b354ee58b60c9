"""Forecasts by analogy: what followed where the window looked most like its end.

A patch is the last few steps before a position. The positions whose patches are nearest to the
newest patch are looked up, and what came after them, weighted by nearness, gives a median, a
spread and the ends of a band: all from the series itself, nothing trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.metric_forecast.window import Window

# Neighbours between these shares of the weight count for the median: steadier than one of them.
_MIDDLE = (0.38, 0.62)
_LOW, _HIGH = (0.05, 0.15), (0.85, 0.95)
_UNREACHABLE = 3e38
# A window of nothing but equal patches has no nearest one: they all weigh a little.
_SMALLEST_WEIGHT = 1e-5
# Of equally alike patches (plateaus) the newer one is nearer, by this share of the window's
# movement over a whole window: in every runtime the same.
_TIE_BREAK = 0.01


@dataclass(frozen=True)
class Patch:
    """How alikeness is measured.

    steps, stride: the patch is every ``stride``-th of the newest ``steps`` steps
    level_share: share of a patch's own level that is ignored (1: only its shape counts)
    decay: weight of a step against the next newer one of the window
    age_penalty: how much farther a patch a whole window back counts
    phase_penalty: how much farther one at the opposite time of day counts (half of this)
    """

    steps: int
    stride: int = 1
    level_share: float = 1.0
    decay: float = 1.0
    age_penalty: float = 0.0
    phase_penalty: float = 0.0


@dataclass(frozen=True)
class Analogs:
    """In the window's own counting, float32 (batch, steps, patches): median; and, from the median
    on, the mean absolute distance of the neighbours and the ends of their band.
    """

    median: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor


def find_analogs(
    window: Window,
    movement: Tensor,
    season_length: Tensor,
    patches: tuple[Patch, ...],
    near: Tensor,
    far: Tensor,
    reaches: tuple[int, int],
    neighbours: int,
) -> Analogs:
    """``movement``, float32 (batch, 1), is the window's mean distance from its level.

    Neighbours for the steps ``near`` and then ``far``, int64 (steps,); either may be empty.

    Near steps are answered by neighbours up to ``reaches[0]`` steps before the end, far ones by
    those up to ``reaches[1]`` before it: each has seen what it is asked.
    """
    if not patches:
        # From the window itself: in an exported graph the batch is not a number.
        steps = len(near) + len(far)
        nothing = window.filled[:, :1].unsqueeze(-1).expand(-1, steps, 1)[..., :0]
        return Analogs(nothing, nothing, nothing, nothing)
    groups = [
        (steps, reach) for steps, reach in zip((near, far), reaches, strict=True) if len(steps)
    ]
    parts = []
    for patch in patches:
        distance = _distances(window, movement, season_length, patch)
        answers = [
            _futures(window, patch, distance, steps, reach, neighbours) for steps, reach in groups
        ]
        parts.append([torch.cat(column, 1) for column in zip(*answers, strict=True)])
    columns = [torch.stack(column, -1) for column in zip(*parts, strict=True)]
    return Analogs(*columns)


def _distances(window: Window, movement: Tensor, season_length: Tensor, patch: Patch) -> Tensor:
    """From the newest patch to the one ending at each position, float32 (batch, positions)."""
    filled, steps = window.filled, window.steps
    ends = torch.arange(patch.steps - 1, steps, device=filled.device)

    def from_newest(back: int) -> Tensor:
        """How far the step ``back`` before each end lies from that of the newest patch."""
        return (
            filled[:, patch.steps - 1 - back : steps - back]
            - filled[:, steps - 1 - back : steps - back]
        )

    ignored = patch.level_share * from_newest(0)
    distance = (1.0 - patch.level_share) * from_newest(0).abs()
    # One step after the other, and not one sum over all: each runtime sums in an order of its own,
    # and the nearest of many must be the same in all of them.
    for back in range(patch.stride, patch.steps, patch.stride):
        distance = distance + patch.decay**back * (from_newest(back) - ignored).abs()
    age = (steps - 1 - ends).unsqueeze(0).to(filled.dtype)
    if patch.phase_penalty:
        day = season_length.clamp(min=1).to(filled.dtype)
        phase = age / day - torch.floor(age / day)
        phase = torch.minimum(phase, 1.0 - phase) * (season_length > 1).to(filled.dtype)
        distance = distance * (1.0 + patch.phase_penalty * phase)
    distance = distance * (1.0 + patch.age_penalty * age / steps)
    distance = distance + _TIE_BREAK * movement * age / steps
    # A patch that begins before the first point is none.
    begun = window.newest[:, ends - (patch.steps - 1)] >= 0
    return torch.where(begun, distance, torch.full_like(distance, _UNREACHABLE))


def _futures(
    window: Window, patch: Patch, distance: Tensor, ahead: Tensor, reach: int, neighbours: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the nearest positions that have seen ``reach`` steps more; each (batch, len(ahead))."""
    filled = window.filled
    count = window.steps - (patch.steps - 1) - reach
    if count < 1:
        nothing = torch.zeros_like(filled[:, :1]).expand(-1, len(ahead))
        return filled[:, -1:] + nothing, nothing, nothing, nothing
    number = min(neighbours, count)
    nearest, position = torch.topk(distance[:, :count], number, dim=1, largest=False)
    # The farthest of them weighs nothing: which of two equally far ones was taken cannot matter.
    farthest = nearest[:, -1:].clamp(min=1e-20)
    weight = (1.0 - nearest / farthest).clamp(min=0.0) + _SMALLEST_WEIGHT
    weight = weight * (nearest < 1e38).to(weight.dtype)
    end = position + patch.steps - 1
    then = torch.gather(filled, 1, end)
    index = end.unsqueeze(1) + ahead.reshape(1, -1, 1)
    future = torch.gather(filled, 1, index.flatten(1)).reshape(index.shape)
    future = future + patch.level_share * (filled[:, -1:] - then).unsqueeze(1)
    ordered, order = torch.sort(future, -1)
    # Counted from one of them: equal neighbours then have no spread at all, not one of rounding.
    # Where none is reachable, any of them would be a choice.
    reached = (weight.amax(-1, keepdim=True) > 0).to(weight.dtype).unsqueeze(1)
    middle = ordered[..., number // 2 : number // 2 + 1] * reached
    ordered = ordered - middle
    share = torch.gather(weight.unsqueeze(1).expand_as(order), -1, order)
    share = share / share.sum(-1, keepdim=True).clamp(min=1e-9)
    until = torch.cumsum(share, -1)

    def between(start: float, stop: float) -> Tensor:
        """Mean of the neighbours between two shares of the weight: continuous in every input."""
        part = (until.clamp(max=stop) - (until - share).clamp(min=start)).clamp(min=0.0)
        return (part * ordered).sum(-1) / part.sum(-1).clamp(min=1e-9)

    median = between(*_MIDDLE)
    spread = (share * (ordered - median.unsqueeze(-1)).abs()).sum(-1)
    low = (between(*_LOW) - median).clamp(max=0.0)
    high = (between(*_HIGH) - median).clamp(min=0.0)
    return middle.squeeze(-1) + median, spread, low, high
