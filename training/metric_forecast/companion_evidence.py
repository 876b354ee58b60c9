"""What companion signals say of a series without any training: a regression fitted on the window.

The target's change over each judged step is regressed, by ridge least squares, on its own recent
changes and on those of its companions, twice: with the companions and without. The difference of
the two forecasts is what the companions add. Both are judged like the experts, at earlier origins
of the same window, by coefficients of the half of the window that the origin does not lie in.

Sums and the elimination are float64, in one order: each runtime finds the same coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.metric_forecast.window import Window, make_window

# What the regression reads: changes over so many steps, and distances from means of so many.
_OWN_CHANGES, _OWN_MEANS = (1, 3, 12), (12, 72, 288)
_CHANGES, _MEANS = (1, 3), (12, 72)
# What the encoder reads of each companion: how far it was from now so many steps ago.
_PATH_STEPS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 144, 288)
# Days whose mean change at the same time of day is taken off first.
_DAYS = (1, 2, 3, 7)
# Multiples of the mean magnitude beyond which a change says no more.
_LARGEST_CHANGE = 3.0
# The ridge, in points of the window, and as a share of a feature's own square.
_RIDGE_POINTS, _RIDGE_SHARE = 200.0, 1e-3
# Below this share of a signal's level its changes are rounding.
_SMALLEST_RELATIVE_CHANGE = 1e-6
OWN = len(_OWN_CHANGES) + len(_OWN_MEANS)
EACH = len(_CHANGES) + len(_MEANS)
PATH = len(_PATH_STEPS) + EACH


class Origins(NamedTuple):
    """Where the window judges forecasts. origins: int64 (batch, origins); truth, there, recent:
    float32 (batch, origins, judged), the latter two 0/1.
    """

    origins: Tensor
    truth: Tensor
    there: Tensor
    recent: Tensor


class Regression(NamedTuple):
    """Values in the window's own counting, float32.

    change: (batch, judged), the regression's forecast of the change from the last value
    lift: (batch, judged), how much of it is the companions'
    errors, errors_day, alone: (batch, judged), mean absolute errors at earlier origins, of all and
    of the last day's; and without the companions
    parts: (batch, companions, judged), each companion's share of ``change``
    paths: (batch, companions, PATH), each companion's newest steps in its own scale
    known: (batch, companions), 1 where a companion has a point and moves
    """

    change: Tensor
    lift: Tensor
    errors: Tensor
    errors_day: Tensor
    alone: Tensor
    parts: Tensor
    paths: Tensor
    known: Tensor


def regress(
    window: Window,
    season_length: Tensor,
    companions: Tensor,
    at: Origins,
    judged: tuple[int, ...],
) -> Regression:
    """
    season_length: int64 (batch, 1), steps a day, 0 = none
    companions: float32 (batch, companions, steps), each in its own unit, NaN = missing
    """
    number, steps = companions.shape[1], window.steps
    beside = make_window(companions.reshape(-1, steps))
    own, _ = _features(window, _OWN_CHANGES, _OWN_MEANS)
    each, sizes = _features(beside, _CHANGES, _MEANS)
    read = torch.cat([own, each.reshape(-1, number * EACH, steps)], 1).to(torch.float64)

    begun = (window.newest >= 0).to(torch.float64)
    changes, usable, unit = _changes(window, begun, judged)
    daily = _daily(changes, usable, season_length, judged)
    # The older and the newer half of what is known.
    position = torch.arange(steps, device=begun.device)
    older = begun * (2 * position < window.first + steps).to(torch.float64)
    halves = torch.stack([older, begun - older], 1).unsqueeze(2)
    weighted = halves * read.unsqueeze(1)
    squares = weighted @ read.unsqueeze(1).transpose(2, 3)
    products = weighted @ ((changes - daily) * usable).unsqueeze(1).transpose(2, 3)
    # Fitted on: the older half, the newer half, all; each with the companions and without.
    squares = torch.cat([squares, squares.sum(1, keepdim=True)], 1)
    products = torch.cat([products, products.sum(1, keepdim=True)], 1)
    coefficients = _solve(squares, products)

    then = (at.origins - 1).clamp(min=0)
    index = then.unsqueeze(1).expand(-1, read.shape[1], -1)
    known = torch.gather(read, 2, index).transpose(1, 2)
    # An origin in the older half is answered by the newer one's coefficients.
    is_older = torch.gather(older, 1, then).unsqueeze(-1) > 0.5
    days = torch.gather(daily, 2, then.unsqueeze(1).expand(-1, len(judged), -1)).transpose(1, 2)
    answers = [
        (torch.where(is_older, known @ both[:, 1], known @ both[:, 0]) + days)
        * unit.transpose(1, 2)
        for both in coefficients
    ]
    truth = (at.truth - window.last(at.origins).unsqueeze(-1)).to(torch.float64)
    joint, alone = (((truth - answer) * at.there).abs() for answer in answers)
    errors, errors_day = _mean(joint, at.there), _mean(joint, at.there * at.recent)
    has_day = (at.there * at.recent).sum(1) > 0.5

    now, width = read[:, :, -1], unit[..., 0]
    with_them, without = (coefficient[:, 2] for coefficient in coefficients)
    share = now.unsqueeze(-1) * with_them * width.unsqueeze(1)
    change = share.sum(1)
    lift = change - (now.unsqueeze(-1) * without).sum(1) * width
    parts = share[:, OWN:].reshape(-1, number, EACH, len(judged)).sum(2)
    single = torch.float32
    moves = (each.abs().amax((1, 2)) > 0).to(single).reshape(-1, number)
    return Regression(
        change=(change + daily[:, :, -1] * width).to(single),
        lift=lift.to(single),
        errors=errors.to(single),
        errors_day=torch.where(has_day, errors_day, errors).to(single),
        alone=_mean(alone, at.there).to(single),
        parts=parts.to(single),
        paths=_paths(beside, each, sizes).reshape(-1, number, PATH),
        known=moves,
    )


def _paths(window: Window, read: Tensor, sizes: Tensor) -> Tensor:
    """Where a companion stood before, (batch, PATH), in multiples of its mean distance from the
    widest mean; and its newest features.
    """
    back = torch.tensor(_PATH_STEPS, device=read.device)
    now, steps = window.filled[:, -1:], window.steps
    then = window.filled[:, (steps - 1 - back).clamp(min=0)]
    moved = (now - then) / torch.maximum(sizes[:, -1], sizes.new_tensor(1e-20))
    moves = (read[:, -1:].abs().amax(2) > 0).to(read.dtype)
    moved = (moved * moves).clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
    return torch.cat([moved, read[..., -1]], 1)


def _features(
    window: Window, changes: tuple[int, ...], means: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """float32 (batch, changes + means, steps), in multiples of each one's mean magnitude, and
    those magnitudes, (batch, changes + means, 1).
    """
    filled, begun = window.filled, (window.newest >= 0).to(window.filled.dtype)
    found = []
    for back in changes:
        before, there = (_shifted(of, back) for of in (filled, begun))
        found.append((filled - before) * there)
    for width in means:
        total = (window.sums - _shifted(window.sums, width))[:, 1:]
        number = (window.counts - _shifted(window.counts, width))[:, 1:]
        mean = (total / number.clamp(min=1.0)).to(filled.dtype)
        found.append((filled - mean) * begun * (number > 0.5).to(filled.dtype))
    read = torch.stack(found, 1)
    points = begun.to(torch.float64).sum(1).clamp(min=1.0).reshape(-1, 1, 1)
    unit = (read.abs().to(torch.float64).sum(2, keepdim=True) / points).to(read.dtype)
    floor = (_SMALLEST_RELATIVE_CHANGE * window.level.abs() + 1e-20).unsqueeze(-1)
    moves = (unit > floor).to(read.dtype)
    read = read / torch.maximum(unit, floor) * moves
    return read.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE), unit


def _changes(
    window: Window, begun: Tensor, judged: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the target over each judged step, in multiples of their mean magnitude; where there is
    one; and that magnitude: float64 (batch, judged, steps | steps | 1).
    """
    filled, mask = window.filled.to(torch.float64), window.mask.to(torch.float64)
    steps = window.steps
    changes, usable = [], []
    for ahead in judged:
        ahead = min(ahead, steps)
        later, there = (F.pad(of, (0, ahead))[:, ahead:] for of in (filled, mask))
        there = there * begun
        changes.append((later - filled) * there)
        usable.append(there)
    change, there = torch.stack(changes, 1), torch.stack(usable, 1)
    unit = change.abs().sum(2, keepdim=True) / there.sum(2, keepdim=True).clamp(min=1.0)
    scaled = change / (unit + 1e-30)
    return scaled.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE), there, unit


def _daily(
    changes: Tensor, usable: Tensor, season_length: Tensor, judged: tuple[int, ...]
) -> Tensor:
    """The part of each change that the days before repeat, (batch, judged, steps): their mean
    change at the same time of day, as far as such means have explained the changes so far.
    """
    steps = changes.shape[2]
    position = torch.arange(steps, device=changes.device)
    # A change over more than a day is not over yet a day later.
    over = season_length.unsqueeze(2) >= torch.tensor(judged, device=changes.device).reshape(-1, 1)
    over = (over & (season_length >= 2).unsqueeze(2)).to(changes.dtype)
    total, number = torch.zeros_like(changes), torch.zeros_like(changes)
    for days in _DAYS:
        index = position - days * season_length
        inside = (index >= 0).to(changes.dtype).unsqueeze(1) * over
        index = index.clamp(0, steps - 1).unsqueeze(1).expand(-1, len(judged), -1)
        there = torch.gather(usable, 2, index) * inside
        total = total + torch.gather(changes, 2, index) * there
        number = number + there
    mean = total / number.clamp(min=1.0)
    both = (mean * usable * changes).sum(2, keepdim=True)
    square = (mean * usable * mean).sum(2, keepdim=True)
    return mean * (both / (square + _RIDGE_POINTS)).clamp(0.0, 1.0)


def _solve(squares: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge coefficients float64 (batch, fits, features, judged), of all features and of OWN only.

    Gauss-Jordan without pivots: the ridge keeps every diagonal above zero.
    """
    size = squares.shape[-1]
    eye = torch.eye(size, dtype=squares.dtype, device=squares.device)
    diagonal = (squares * eye).sum(-1, keepdim=True)
    ridge = _RIDGE_POINTS + _RIDGE_SHARE * diagonal
    table = torch.cat([squares + ridge * eye, products], -1)
    for i in range(size):
        if i == OWN:
            alone = table[..., :OWN, size:]
        row = table[..., i : i + 1, :] / table[..., i : i + 1, i : i + 1]
        table = table - (table[..., :, i : i + 1] - eye[:, i : i + 1]) * row
    alone = F.pad(alone, (0, 0, 0, size - OWN))
    return table[..., size:], alone


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def _shifted(of: Tensor, back: int) -> Tensor:
    """(batch, steps) as it was so many steps before; 0 before the start."""
    return F.pad(of, (back, 0))[:, : of.shape[1]]
