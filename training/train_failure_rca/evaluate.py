"""Figures of a multi-label diagnosis: micro-F1, macro-F1, exact match, false causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.train_failure_rca.corpus.labels import LABELS

_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.3, 0.9
_COMMON_WEIGHT = 3.0


@dataclass(frozen=True)
class Figures:
    """``macro_f1`` over the labels present; ``false_causes``: share of logs without a cause that
    get one all the same (NaN when there are none).
    """

    micro_f1: float
    macro_f1: float
    exact_match: float
    false_causes: float
    logs: int

    def describe(self) -> str:
        return (
            f"micro-F1 {self.micro_f1:.3f}, macro-F1 {self.macro_f1:.3f},"
            f" exact {self.exact_match:.3f}, false causes {self.false_causes:.3f}"
        )


def figures(predicted: Sequence[frozenset[str]], truth: Sequence[frozenset[str]]) -> Figures:
    """Compare predicted and true label sets, one of each per log."""
    p = np.array([[label in labels for label in LABELS] for labels in predicted], dtype=bool)
    t = np.array([[label in labels for label in LABELS] for labels in truth], dtype=bool)
    hits, wrong, missed = (p & t).sum(0), (p & ~t).sum(0), (~p & t).sum(0)
    present = t.any(0)
    by_label = 2 * hits / np.maximum(1, 2 * hits + wrong + missed)
    healthy = ~t.any(1)
    return Figures(
        micro_f1=float(2 * hits.sum() / max(1, 2 * hits.sum() + wrong.sum() + missed.sum())),
        macro_f1=float(by_label[present].mean()) if present.any() else 0.0,
        exact_match=float((p == t).all(1).mean()),
        false_causes=float(p[healthy].any(1).mean()) if healthy.any() else float("nan"),
        logs=len(truth),
    )


def choose_thresholds(
    probabilities: np.ndarray,
    truth: Sequence[frozenset[str]],
    weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Per label the threshold of best F1, from the middle of its best stretch.

    A label has few logs here: the counts of all labels together, at a small weight, keep its
    threshold near the common one unless its own say otherwise. probabilities: float32
    (logs, labels). ``weights``: how much each log counts, 1 where not said.
    """
    grid = np.linspace(_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD, 25)
    actual = np.array([[label in labels for label in LABELS] for labels in truth], dtype=bool)
    worth = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    alarms = probabilities[:, :, None] >= grid
    hits = np.tensordot(worth, alarms & actual[:, :, None], axes=1)
    raised, present = np.tensordot(worth, alarms, axes=1), (worth @ actual)[:, None]
    common = _COMMON_WEIGHT / len(LABELS)
    hits = hits + common * hits.sum(0)
    f1 = (
        2
        * hits
        / np.maximum(1e-9, raised + common * raised.sum(0) + present + common * present.sum())
    )
    thresholds: dict[str, float] = {}
    for index, label in enumerate(LABELS):
        best = np.flatnonzero(f1[index] >= f1[index].max() - 1e-9)
        thresholds[label] = round(float(grid[best].mean()), 4)
    return thresholds


def labels_above(probabilities: np.ndarray, thresholds: dict[str, float]) -> list[frozenset[str]]:
    bars = np.array([thresholds[label] for label in LABELS], dtype=np.float32)
    return [frozenset(np.array(LABELS)[row >= bars].tolist()) for row in probabilities]
