"""Figures of a ranking and of a threshold: precision, recall, F1, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A threshold outside would alarm on doubt, or stay silent on all but certainty.
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.3, 0.95
# Of what near-normal systems print, and of messages that are meant to be mistaken for faults: an
# alarm that cries wolf is switched off, so recall is what gives way.
NEAR_NORMAL_FALSE_ALARMS, HARD_FALSE_ALARMS = 0.005, 0.025


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 at one threshold, and average precision over all."""

    f1: float
    precision: float
    recall: float
    average_precision: float


def evaluate(scores: np.ndarray, truth: np.ndarray, threshold: float) -> Scores:
    """F1 of "score at or above threshold" and average precision; truth bool (rows,)."""
    alarm = scores >= threshold
    hits = int((alarm & truth).sum())
    precision = hits / max(1, int(alarm.sum()))
    recall = hits / max(1, int(truth.sum()))
    f1 = 2 * precision * recall / max(1e-12, precision + recall)
    return Scores(f1, precision, recall, average_precision(scores, truth))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Σ precision × recall gained, going down the scores; equal scores count as one step."""
    if not truth.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision = hits[last] / (last + 1)
    gained = np.diff(np.concatenate([[0], hits[last]])) / truth.sum()
    return float((precision * gained).sum())


def bootstrap_interval(
    scores: np.ndarray, truth: np.ndarray, *, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """The middle 90% of average precision over resampled rows."""
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        chosen = generator.integers(len(truth), size=len(truth))
        values.append(average_precision(scores[chosen], truth[chosen]))
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(high)


def choose_threshold(
    scores: np.ndarray, truth: np.ndarray, quiet: Sequence[tuple[np.ndarray, float]] = ()
) -> float:
    """The threshold of best F1, half-way between the scores on its two sides.

    quiet: (bool (rows,), share): of these rows at most that share may alarm; where no threshold
    keeps that, the highest is taken.
    """
    if not truth.any() or truth.all():
        return 0.5
    ordered = np.unique(scores)
    candidates = np.unique(
        np.clip(
            np.concatenate([[0.5], (ordered[1:] + ordered[:-1]) / 2]),
            LOWEST_THRESHOLD,
            HIGHEST_THRESHOLD,
        )
    )
    for rows, share in quiet:
        if rows.any():
            kept = [(scores[rows] >= candidate).mean() <= share for candidate in candidates]
            candidates = candidates[kept] if any(kept) else candidates[-1:]
    f1 = [evaluate(scores, truth, float(candidate)).f1 for candidate in candidates]
    return float(candidates[int(np.argmax(f1))])
