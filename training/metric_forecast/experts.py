"""Simple causal forecasts, at any origins of a window and any number of steps ahead.

Nothing here is trained. The same arithmetic answers the window's end and judges itself at earlier
origins, where the truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.metric_forecast.window import BEYOND, Window, take

# Steps back that show how far today is from the same hours of other days.
RECENT_STEPS = 6
_EWMA_STEPS = 24
_EWMA_SHARE = 0.5
LEVEL, SEASONAL = "level", "seasonal"


@dataclass(frozen=True)
class ExpertSettings:
    """Which windows the level experts read, in steps, and how many days the seasonal ones."""

    mean_steps: tuple[int, ...]
    # (width, stride): a wide median reads every stride-th step.
    medians: tuple[tuple[int, int], ...]
    seasonal_days: int

    @property
    def names(self) -> tuple[str, ...]:
        return (
            "last",
            *(f"mean of {width}" for width in self.mean_steps),
            *(f"median of {width}" for width, _ in self.medians),
            "ewma",
            *self.seasonal_names,
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Per expert: last, level or seasonal."""
        levels = len(self.mean_steps) + len(self.medians) + 1
        return ("last", *([LEVEL] * levels), *([SEASONAL] * len(self.seasonal_names)))

    @property
    def seasonal_names(self) -> tuple[str, ...]:
        """With one day alone its mean and its median are that day itself."""
        return _ONE_DAY_NAMES if self.seasonal_days == 1 else _SEASONAL_NAMES


_ONE_DAY_NAMES = (
    "yesterday",
    "yesterday smoothed",
    "yesterday's change",
    "yesterday, half at today's level",
    "yesterday, at today's level",
)
_SEASONAL_NAMES = (
    "yesterday",
    "yesterday smoothed",
    "yesterday's change",
    "the oldest day",
    "mean of days",
    "median of days",
    "median of days, half at today's level",
    "median of days, at today's level",
    "median of days smoothed",
    "change of the median of days",
    "mean of three days, at today's level",
)


class Experts:
    """The experts of one batch. season_length: int64 (batch, 1), steps a day, 0 = none."""

    def __init__(self, settings: ExpertSettings, window: Window, season_length: Tensor) -> None:
        self.settings = settings
        self.window = window
        self.season = season_length.clamp(min=1).unsqueeze(-1)
        self.has_season = (season_length >= 2).to(window.values.dtype).unsqueeze(-1)
        half_width = torch.div(season_length, 96, rounding_mode="trunc")
        self.smooth, self.smooth_mask = window.smoothed(half_width)

    def at(self, origins: Tensor, ahead: Tensor) -> Tensor:
        """Forecasts in the window's own counting.

        origins: int64 (batch, origins); ahead: int64 (steps,), 1 = the first unknown step
        → (batch, origins, steps, experts)
        """
        window, settings = self.window, self.settings
        last = window.last(origins)
        levels = [last]
        levels += [window.mean(origins, width) for width in settings.mean_steps]
        levels += [window.median(origins, *median) for median in settings.medians]
        levels.append(self._ewma(origins))
        shape = (-1, -1, len(ahead))
        flat = [level.unsqueeze(-1).expand(*shape) for level in levels]
        return torch.stack([*flat, *self._seasonal(origins, ahead, last.unsqueeze(-1))], -1)

    def _ewma(self, origins: Tensor) -> Tensor:
        back = torch.arange(_EWMA_STEPS, device=origins.device)
        values, known = self.window.at(origins.unsqueeze(-1) - 1 - back)
        weight = known * (1 - _EWMA_SHARE) ** back.to(values.dtype)
        return (weight * values).sum(-1) / weight.sum(-1).clamp(min=1e-9)

    def _seasonal(self, origins: Tensor, ahead: Tensor, last: Tensor) -> list[Tensor]:
        """In the order of ``seasonal_names``; the last value where no day is known."""
        recent = torch.arange(1 - RECENT_STEPS, 1, device=ahead.device)
        steps = torch.cat([recent, ahead])
        # The days' values are looked up once: first at the recent steps, then at those ahead.
        days = torch.div((steps - 1).clamp(min=0), self.season, rounding_mode="trunc") + 1
        base = origins.unsqueeze(-1) + steps - 1
        raw, smooth, known, smooth_known = [], [], [], []
        for day in range(self.settings.seasonal_days):
            index = base - self.season * (days + day)
            inside = (index >= 0).to(last.dtype) * self.has_season
            index = index.clamp(0, self.window.steps - 1)
            raw.append(take(self.window.values, index))
            known.append(take(self.window.mask, index) * inside)
            smooth.append(take(self.smooth, index))
            smooth_known.append(take(self.smooth_mask, index) * inside)
        current, current_known = self.window.at(base[..., :RECENT_STEPS])

        def plain(of: tuple[Tensor, Tensor]) -> Tensor:
            value, there = of[0][..., RECENT_STEPS:], of[1][..., RECENT_STEPS:]
            return torch.where(there > 0.5, value, last)

        def shift(of: tuple[Tensor, Tensor]) -> Tensor:
            """How far the recent steps lie above their own days."""
            both = current_known * of[1][..., :RECENT_STEPS]
            apart = ((current - of[0][..., :RECENT_STEPS]) * both).sum(-1, keepdim=True)
            return of[1][..., RECENT_STEPS:] * apart / both.sum(-1, keepdim=True).clamp(min=1.0)

        def change(of: tuple[Tensor, Tensor]) -> Tensor:
            """The last value, and what the days did from the step of the origin on."""
            then = of[0][..., RECENT_STEPS - 1 : RECENT_STEPS]
            there = of[1][..., RECENT_STEPS:] * of[1][..., RECENT_STEPS - 1 : RECENT_STEPS]
            return last + there * (of[0][..., RECENT_STEPS:] - then)

        yesterday = _newest(raw, known)
        yesterday_smooth = _newest(smooth, smooth_known)
        newest = [plain(yesterday), plain(yesterday_smooth), change(yesterday_smooth)]
        if self.settings.seasonal_days == 1:
            level = shift(yesterday)
            return [*newest, plain(yesterday) + 0.5 * level, plain(yesterday) + level]
        three_days = _mean(raw[:3], known[:3])
        days_mean = _mean(smooth, smooth_known)
        median = _median(raw, known)
        median_smooth = _median(smooth, smooth_known)
        oldest = (raw[-1], known[-1])
        return [
            *newest,
            plain(oldest),
            plain(days_mean),
            plain(median),
            plain(median) + 0.5 * shift(median),
            plain(median) + shift(median),
            plain(median_smooth),
            change(median_smooth),
            plain(three_days) + shift(three_days),
        ]


def between(knots: Tensor, ahead: Tensor, *, logarithmic: bool = True) -> Tensor:
    """Weights (steps, knots) that interpolate, linearly in the step or in its logarithm."""
    at, points = ahead.to(torch.float32).unsqueeze(1), knots.to(torch.float32)
    if len(knots) == 1:
        return torch.ones_like(at)
    if logarithmic:
        at, points = torch.log(at), torch.log(points)
    low, high = points[:-1], points[1:]
    part = ((at - low) / (high - low)).clamp(0.0, 1.0)
    # Rising by each interval's share: 1 at its own knot, falling to both sides.
    ones = torch.ones_like(at)
    return torch.cat([ones, part], 1) - torch.cat([part, torch.zeros_like(at)], 1)


def _newest(values: list[Tensor], known: list[Tensor]) -> tuple[Tensor, Tensor]:
    value, found = torch.zeros_like(values[0]), torch.zeros_like(known[0])
    for one, there in zip(values, known, strict=True):
        value = torch.where((there - found) > 0.5, one, value)
        found = torch.maximum(found, there)
    return value, found


def _mean(values: list[Tensor], known: list[Tensor]) -> tuple[Tensor, Tensor]:
    total, number = torch.zeros_like(values[0]), torch.zeros_like(known[0])
    for one, there in zip(values, known, strict=True):
        total = total + one * there
        number = number + there
    return total / number.clamp(min=1.0), (number > 0.5).to(total.dtype)


def _median(values: list[Tensor], known: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Odd-even transposition: minima and maxima only, the same bits in every runtime."""
    ordered = [
        torch.where(there > 0.5, one, torch.full_like(one, BEYOND))
        for one, there in zip(values, known, strict=True)
    ]
    number = torch.stack(known).sum(0)
    size = len(ordered)
    for turn in range(size):
        for i in range(turn % 2, size - 1, 2):
            low, high = ordered[i], ordered[i + 1]
            ordered[i], ordered[i + 1] = torch.minimum(low, high), torch.maximum(low, high)
    median = torch.zeros_like(ordered[0])
    for count in range(1, size + 1):
        middle = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
        median = torch.where((number - count).abs() < 0.5, middle, median)
    return median, (number > 0.5).to(median.dtype)
