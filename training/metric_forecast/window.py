"""A batch of windows made ready for arithmetic: gaps masked, values counted from the median.

All positions in here are *origins*: the number of steps known, so that origin ``o`` has seen the
steps ``0 … o - 1`` and forecasts step ``o`` first. Values count from the window's median, so
that a metric at 1e12 with a spread of 1 keeps its digits in float32, also beside one wild value.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Larger magnitudes count as missing, as do NaN and infinities: sums of a window stay finite.
LARGEST_MAGNITUDE = 1e30
# Sorts after every value there can be.
BEYOND = 3e38


@dataclass(frozen=True)
class Window:
    """values, mask, filled: float32 (batch, steps). ``values`` is 0 where missing, ``filled`` the
    last value before (0 before the first one). level: (batch, 1), what was subtracted.
    """

    values: Tensor
    mask: Tensor
    filled: Tensor
    level: Tensor
    # Float64 (batch, steps + 1): in float32 a mean far along the window is a small difference of
    # large sums, and each runtime rounds those its own way.
    sums: Tensor
    counts: Tensor
    # Index of the newest point at or before each step, int64 (batch, steps), -1 where none.
    newest: Tensor

    @property
    def first(self) -> Tensor:
        """Index of the first known step, int64 (batch, 1); the number of steps if there is none."""
        return (self.newest < 0).to(torch.int64).sum(1, keepdim=True)

    @property
    def steps(self) -> int:
        return self.values.shape[1]

    def mean(self, origins: Tensor, width: int) -> Tensor:
        """Mean of the last ``width`` steps before each origin (batch, …), 0 where none is known."""
        start = (origins - width).clamp(min=0)
        total = take(self.sums, origins) - take(self.sums, start)
        number = take(self.counts, origins) - take(self.counts, start)
        return (total / number.clamp(min=1.0)).to(self.values.dtype)

    def median(self, origins: Tensor, width: int, stride: int) -> Tensor:
        """Median of every ``stride``-th of the last ``width`` steps, 0 where none is known."""
        back = torch.arange(1, width + 1, stride, device=origins.device)
        index = origins.unsqueeze(-1) - back
        known = take(self.mask, index.clamp(min=0)) * (index >= 0)
        values = take(self.values, index.clamp(min=0))
        nothing = torch.zeros_like(values[..., :1])
        return _median(values, known > 0.5, nothing).squeeze(-1)

    def last(self, origins: Tensor) -> Tensor:
        """Newest value before each origin, 0 where none is known."""
        return take(self.filled, (origins - 1).clamp(min=0))

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Values and 0/1 mask at any steps (batch, …); steps outside the window are masked."""
        inside = ((index >= 0) & (index < self.steps)).to(self.mask.dtype)
        index = index.clamp(0, self.steps - 1)
        return take(self.values, index), take(self.mask, index) * inside

    def smoothed(self, half_width: Tensor) -> tuple[Tensor, Tensor]:
        """Centred means over ±``half_width`` int64 (batch, 1) steps, and where there is one."""
        steps = torch.arange(self.steps, device=self.values.device).unsqueeze(0)
        start = (steps - half_width).clamp(min=0)
        stop = (steps + half_width + 1).clamp(max=self.steps)
        total = take(self.sums, stop) - take(self.sums, start)
        number = take(self.counts, stop) - take(self.counts, start)
        mean = (total / number.clamp(min=1.0)).to(self.values.dtype)
        return mean, (number > 0.5).to(self.mask.dtype)


def make_window(series: Tensor) -> Window:
    """series: float32 (batch, steps), own unit, NaN = missing."""
    steps = series.shape[1]
    finite = series.abs() <= LARGEST_MAGNITUDE
    mask = finite.to(series.dtype)
    raw = torch.where(finite, series, torch.zeros_like(series))
    order = mask * torch.arange(1, steps + 1, dtype=mask.dtype, device=mask.device)
    # A running maximum in doubling strides: no runtime we serve on has one.
    shift = 1
    while shift < steps:
        order = torch.maximum(order, F.pad(order, (shift, 0))[:, :steps])
        shift *= 2
    newest = order.to(torch.int64) - 1
    # Of at most 168 points, the newest among them: exact enough to count from.
    stride = max(1, steps // 168)
    some, there = raw.flip(1)[:, ::stride], finite.flip(1)[:, ::stride]
    level = _median(some, there, torch.gather(raw, 1, newest[:, -1:].clamp(min=0)))
    values = (raw - level) * mask
    filled = torch.gather(values, 1, newest.clamp(min=0))
    filled = torch.where(newest >= 0, filled, torch.zeros_like(filled))
    sums = F.pad(torch.cumsum(values.to(torch.float64), 1), (1, 0))
    counts = F.pad(torch.cumsum(mask.to(torch.float64), 1), (1, 0))
    return Window(values, mask, filled, level, sums, counts, newest)


def compress(ratio: Tensor) -> Tensor:
    """Sign-preserving log: outliers of any size stay in a network's range."""
    return torch.sign(ratio) * torch.log(1 + ratio.abs())


def take(table: Tensor, index: Tensor) -> Tensor:
    """table (batch, steps) at index int64 (batch, …)."""
    if index.dim() == 2:
        return torch.gather(table, 1, index)
    return torch.gather(table, 1, index.reshape(-1, _rows(index))).reshape(_shape(index))


def _shape(tensor: Tensor) -> list[int]:
    """Plain numbers but for the batch: an exported graph need not compute them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return [-1, *(int(size) for size in tensor.shape[1:])]


def _rows(tensor: Tensor) -> int:
    return math.prod(_shape(tensor)[1:])


def _median(values: Tensor, known: Tensor, otherwise: Tensor) -> Tensor:
    """Over the last axis, which is kept; ``otherwise`` where nothing is known."""
    ordered = torch.sort(torch.where(known, values, torch.full_like(values, BEYOND)), -1).values
    number = known.to(torch.int64).sum(-1, keepdim=True)
    size = values.shape[-1]
    low = torch.gather(ordered, -1, torch.div(number - 1, 2, rounding_mode="trunc").clamp(min=0))
    high = torch.gather(
        ordered, -1, torch.div(number, 2, rounding_mode="trunc").clamp(max=size - 1)
    )
    return torch.where(number > 0, 0.5 * low + 0.5 * high, otherwise)
