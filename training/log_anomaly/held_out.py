"""How good scores are on a system: one table row per system, for each way of scoring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.log_anomaly.scores import average_precision, evaluate
from training.log_anomaly.systems import LogRow

Scorer = Callable[[Sequence[str]], np.ndarray]
"""Texts → P(anomaly) or any other rising score, float (rows,)."""


@dataclass(frozen=True)
class Method:
    """A way of scoring raw lines, and the score from which on it alarms."""

    name: str
    score: Scorer
    threshold: float


@dataclass
class Figures:
    """One system under one method, over the seeds: {figure: values}.

    ``AP`` and ``F1`` where both classes are there; ``false alarms`` of the normal rows.
    """

    rows: int
    anomalies: int
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)

    def show(self, name: str, *, percent: bool = False) -> str:
        """``.43 ± .02``, or ``–`` where there is no such figure."""
        values = self.values.get(name)
        if not values:
            return "–"
        mean, spread = float(np.mean(values)), float(np.std(values))
        if percent:
            return (
                f"{mean:.1%}" if len(values) == 1 or spread == 0 else f"{mean:.1%} ± {spread:.1%}"
            )
        return f"{mean:.2f}" if len(values) == 1 or spread == 0 else f"{mean:.2f} ± {spread:.2f}"


class Ledger:
    """Figures by (system, method name), in the order they came."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], Figures] = {}

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(system for system, _ in self.figures))

    def judge(
        self,
        system: str,
        rows: Sequence[LogRow],
        methods: Sequence[Method],
        weights: Sequence[int] | None = None,
    ) -> None:
        """Score distinct ``rows`` with every method. ``weights``: lines each of them stands for."""
        truth = np.array([row.anomaly for row in rows])
        texts = [row.text for row in rows]
        lines = np.ones(len(rows)) if weights is None else np.asarray(weights)
        for method in methods:
            figures = self.figures.setdefault(
                (system, method.name), Figures(len(rows), int(truth.sum()))
            )
            figures.add(**figures_of(method.score(texts), truth, method.threshold, lines))


def figures_of(
    scores: np.ndarray, truth: np.ndarray, threshold: float, lines: np.ndarray
) -> dict[str, float]:
    """AP, F1, and false alarms over distinct rows and over all lines."""
    found: dict[str, float] = {}
    if truth.any() and not truth.all():
        found["AP"] = average_precision(scores, truth)
        found["F1"] = evaluate(scores, truth, threshold).f1
    if truth.any():
        found["recall"] = float((scores >= threshold)[truth].mean())
    if not truth.all():
        alarm = (scores >= threshold)[~truth]
        found["false alarms"] = float(alarm.mean())
        found["false alarms by line"] = float((alarm * lines[~truth]).sum() / lines[~truth].sum())
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(r) for r in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def system_rows(ledger: Ledger, methods: Sequence[str]) -> list[list[str]]:
    """Per system: rows, AP / F1 / false alarms of each method, recall of the last one."""
    rows = []
    for system in ledger.systems:
        first = ledger.figures[system, methods[0]]
        cells = [system, f"{first.rows} ({first.anomalies})"]
        for name in ("AP", "F1"):
            cells += [ledger.figures[system, method].show(name) for method in methods]
        cells += [
            ledger.figures[system, method].show("false alarms", percent=True) for method in methods
        ]
        cells.append(ledger.figures[system, methods[-1]].show("recall", percent=True))
        rows.append(cells)
    return rows


def summary(figures: Mapping[str, Sequence[float]]) -> str:
    """``name mean ± spread (n)`` of each, joined."""
    return "; ".join(
        f"{name} {np.mean(values):.3f} ± {np.std(values):.3f} ({len(values)} runs)"
        for name, values in figures.items()
        if len(values)
    )
