"""Which series of the same machine are read beside a series: chosen from its training part only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.metric_forecast.data import Series, window_at

# Steps ahead at which a companion must say something, and what is looked at in it.
_AHEAD = (1, 3, 6, 12)
_CHANGES, _MEANS = (1, 3), (12, 72)
_RIDGE = 30.0
# Training: how often a window is read alone, and how often one companion is left out.
_ALONE, _LEFT_OUT = 0.15, 0.2


class Companions:
    """At most ``number`` for each series: other series of its file that run beside it.

    Those come first whose recent changes go with what the series does next, after what its own
    recent changes explain of it.
    """

    def __init__(self, series: Sequence[Series], number: int) -> None:
        self.number = number
        self._beside: dict[tuple[str, str], list[np.ndarray]] = {}
        machines: dict[tuple[str, str, str, int, int], list[Series]] = {}
        for one in series:
            key = (one.family, one.system, one.path, one.step_seconds, len(one.values))
            machines.setdefault(key, []).append(one)
        for together in machines.values():
            if len(together) > 1:
                order = _order(together)
                for one, chosen in zip(together, order, strict=True):
                    beside = [together[i].values for i in chosen[:number]]
                    self._beside[one.path, one.name] = beside

    def of(self, one: Series) -> list[np.ndarray]:
        """Each float32 (steps,), step by step beside the series' own; the best first."""
        return self._beside.get((one.path, one.name), [])

    def windows(self, one: Series, origin: int, context_length: int) -> np.ndarray:
        """float32 (number, context_length), all NaN where there are fewer; nothing from the origin
        on is in it.
        """
        windows = np.full((self.number, context_length), np.nan, dtype=np.float32)
        for i, values in enumerate(self.of(one)):
            windows[i] = window_at(values, origin, context_length)
        return windows

    def training_windows(
        self, random: np.random.Generator, one: Series, origin: int, context_length: int
    ) -> np.ndarray:
        """The same with some left out and some upside down."""
        windows = self.windows(one, origin, context_length)
        flipped = random.random(self.number) < 0.5
        left_out = random.random(self.number) < _LEFT_OUT
        left_out |= random.random() < _ALONE
        windows[flipped] *= -1
        windows[left_out] = np.nan
        return windows


def _order(together: Sequence[Series]) -> list[list[int]]:
    """Per series the others, the most telling first; those that never move are left out."""
    split = min(one.split for one in together)
    values = np.stack([_filled(one.values[:split]) for one in together])
    told = _compressed(_recent(values, _CHANGES, _MEANS))
    norms = np.sqrt((told**2).sum(-1))
    told = told / np.where(norms > 0, norms, 1.0)[..., None]
    scores = np.zeros((len(values), len(values)))
    own = _recent(values, (1, 3, 12), (12, 72, 288))
    for ahead in _AHEAD:
        if split <= 2 * ahead:
            continue
        for i in range(len(values)):
            change = values[i, ahead:] - values[i, :-ahead]
            left = _compressed(_unexplained(change, own[i, :, :-ahead]))
            norm = np.sqrt((left**2).sum())
            if norm > 0:
                alike = np.abs(told[:, :, :-ahead] @ left).max(1) / norm
                scores[i] = np.maximum(scores[i], alike)
    order = []
    for i in range(len(values)):
        scores[i, i] = 0.0
        best = np.argsort(-scores[i], kind="stable")
        order.append([int(j) for j in best if scores[i, j] > 0])
    return order


def _unexplained(change: np.ndarray, own: np.ndarray) -> np.ndarray:
    """What a ridge regression on the series' own recent changes leaves of the next one."""
    size = np.sqrt((own**2).mean(1, keepdims=True))
    read = np.clip(own / np.where(size > 0, size, 1.0), -6, 6)
    squares = read @ read.T + _RIDGE * np.eye(len(read))
    return np.asarray(change - np.linalg.solve(squares, read @ change) @ read)


def _recent(values: np.ndarray, changes: Sequence[int], means: Sequence[int]) -> np.ndarray:
    """float64 (series, changes + means, steps)."""
    steps = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, 1)], 1)
    until = np.arange(1, steps + 1)
    found = []
    for back in changes:
        change = np.zeros_like(values)
        change[:, back:] = values[:, back:] - values[:, :-back]
        found.append(change)
    for width in means:
        start = np.maximum(until - width, 0)
        found.append(values - (sums[:, until] - sums[:, start]) / (until - start))
    return np.stack(found, 1)


def _compressed(values: np.ndarray) -> np.ndarray:
    """One wild step must not choose."""
    size = np.abs(values).mean(-1, keepdims=True)
    return np.asarray(np.sign(values) * np.log1p(np.abs(values) / np.where(size > 0, size, 1.0)))


def _filled(values: np.ndarray) -> np.ndarray:
    """float64, the last value before where missing, counted from the median."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    newest = np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))
    filled = np.where(known, values, 0.0)[newest].astype(np.float64)
    return np.asarray(filled - np.median(filled))
