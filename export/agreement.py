"""Does one served answer agree with eager's, within the manifest's limits? No torch here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from contract.manifest import Manifest, Tolerance
from export.difference import row_scale, scaled_difference
from export.target import Target
from export.verdict import Flip
from training.registry import get_spec
from training.spec import Arrays

CELL = "golden questions"


def graph_disagreement(
    manifest: Manifest, target: Target, inputs: Arrays, expected: Arrays, outputs: Arrays
) -> str | None:
    """What is wrong with the answer of a native-backend model; None: it agrees.

    inputs, expected, outputs: {tensor name: (rows, …)}
    """
    graph = manifest.graph
    tolerances = _tolerances(manifest, target)
    for output, want in expected.items():
        got, tolerance = outputs[output], tolerances[output]
        if got.shape != want.shape:
            return f"{output} has shape {got.shape}, expected {want.shape}"
        delta, _, mismatched = scaled_difference(want, got, row_scale(graph, inputs, tolerance))
        if mismatched.any():
            return f"{int(mismatched.sum())} values of {output} are NaN or infinite"
        if delta.max(initial=0.0) > tolerance.maximum:
            return f"{output} differs by {delta.max():.1e}, allowed {tolerance.maximum:.1e}"
    decide = get_spec(manifest.model).parity.decide
    wanted, got_decisions = (decide(manifest, inputs, one) for one in (expected, outputs))
    flipped = wanted.values != got_decisions.values
    sure = flipped & (wanted.margins > target.allowed_flip_margin)
    if sure.any() or (flipped.any() and not target.reduced):
        return f"{int(flipped.sum())} of {flipped.size} decisions flipped"
    return None


def front_disagreement(
    manifest: Manifest, target: Target, expected: Arrays, outputs: Arrays
) -> str | None:
    """The same of a text front: texts must be equal, numbers within the classifier's tolerance."""
    comparison = AnswerComparison()
    for output, want in expected.items():
        comparison.add(0, output, want, outputs[output])
    return compared(comparison, manifest, target)


def compared(comparison: AnswerComparison, manifest: Manifest, target: Target) -> str | None:
    """What is wrong with the answers that ``comparison`` holds; None: nothing."""
    allowed = _tolerances(manifest, target)[manifest.graph.outputs[0].name].maximum
    if comparison.flips and not target.reduced:
        first = comparison.flips[0].cell
        return f"{len(comparison.flips)} answers differ, first {first}"
    if comparison.maximum > allowed:
        return (
            f"a number differs by {comparison.maximum:.1e} ({comparison.worst}), allowed"
            f" {allowed:.1e}"
        )
    return None


def _tolerances(manifest: Manifest, target: Target) -> dict[str, Tolerance]:
    graph = manifest.graph
    return graph.tolerances | (graph.reduced_tolerances if target.reduced else {})


class AnswerComparison:
    """Answers of a front: texts and JSON values must be equal, numbers are measured."""

    def __init__(self) -> None:
        self.differences: list[float] = []
        self.maximum = 0.0
        self.worst = CELL
        self.decisions = 0
        self.flips: list[Flip] = []

    def add(self, request: int, name: str, expected: np.ndarray, got: np.ndarray) -> None:
        if expected.shape != got.shape:
            self._flip(
                f"{name} of request {request}: shape {expected.shape}, served {got.shape}", 0
            )
            return
        for row in range(len(expected)):
            where = f"{name}, row {row}"
            for want, have in zip(expected[row].ravel(), got[row].ravel(), strict=True):
                if isinstance(want, bytes):
                    self.compare(where, row, _parsed(want), _parsed(have))
                else:
                    self.compare(where, row, float(want), float(have))

    def compare(self, where: str, row: int, want: Any, have: Any) -> None:
        """Two values of JSON: their numbers are measured, all else must be equal."""
        if isinstance(want, dict) and isinstance(have, dict) and want.keys() == have.keys():
            for key in want:
                self.compare(f"{where}, {key}", row, want[key], have[key])
        elif isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
            for one, other in zip(want, have, strict=True):
                self.compare(where, row, one, other)
        elif isinstance(want, float) and isinstance(have, float):
            difference = abs(want - have)
            self.differences.append(difference)
            if difference > self.maximum:
                self.maximum, self.worst = difference, where
        else:
            self.decisions += 1
            if want != have:
                self._flip(where, row)

    def _flip(self, where: str, row: int) -> None:
        self.flips.append(Flip(where, row, 0, 0, 1, 0.0))


def _parsed(value: bytes) -> Any:
    """JSON texts as what they hold, other texts as they are."""
    text = value.decode("utf-8", errors="replace")
    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
