"""Does an exported model decide as the PyTorch one? The comparison of one rung with eager."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable

import numpy as np

from contract.errors import PresageError
from contract.manifest import Tensor, Tolerance
from export.candidate import Candidate
from export.difference import row_scale, scaled_difference
from export.grid import Cell, Question, Reference, Tick
from export.ladder import Rung, expected_type
from export.stability import stability
from export.verdict import (
    HISTOGRAM_EDGES,
    CellError,
    Flip,
    RungResult,
    Stability,
    TensorResult,
    WorstRow,
)
from training.spec import Arrays

FLIPS_KEPT = 20
WORST_KEPT = 5


def compare(
    reference: Reference,
    rung: Rung,
    file: str,
    tick: Tick,
    *,
    smallest_batch: int = 1,
) -> RungResult:
    """Ask ``rung`` every question (of ``smallest_batch`` rows or more, and every edge row) and
    hold it against eager, per tensor and per decision; then ask whether neighbours matter.

    A question that raises, or is answered in other shapes or types, fails the rung; it does not
    end it.
    """
    candidate = reference.candidate
    graph, target = candidate.graph, candidate.target
    comparison = _Comparison(candidate)
    started = time.perf_counter()
    asked = 0
    rows = 0
    for question in reference.questions:
        tick()
        if question.rows < smallest_batch and not question.cell.edge:
            continue
        asked += 1
        rows += question.rows
        outputs = _answer(rung, question, graph.outputs)
        if isinstance(outputs, CellError):
            comparison.errors.append(outputs)
        else:
            comparison.add(question, outputs)
    stable: list[Stability] = []
    if not comparison.errors:
        stable = stability(candidate, reference.strangers, rung)
    return RungResult(
        rung=rung.name,
        against="eager",
        file=file,
        cells=asked,
        rows=rows,
        seconds=time.perf_counter() - started,
        tensors=[part.result() for part in comparison.differences.values()],
        decisions=comparison.decisions,
        flipped=comparison.flipped,
        served_by=rung.served_by,
        allowed_flip_share=target.allowed_flip_share,
        allowed_flip_margin=target.allowed_flip_margin,
        widest_flip_margin=comparison.widest_flip_margin,
        flips=comparison.flips,
        errors=comparison.errors,
        faults=[f"{fault} at {cell}" for fault, cell in comparison.faults.items()],
        stability=stable,
        worst=comparison.worst_rows(),
    )


def _answer(rung: Rung, question: Question, tensors: Iterable[Tensor]) -> Arrays | CellError:
    cell = str(question.cell)
    try:
        outputs = rung.run(question.inputs)
    except (PresageError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return CellError(cell, (str(error).splitlines() or ["failed"])[0])
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        return CellError(cell, f"{type(error).__name__}: {error}"[:300])
    for tensor in tensors:
        want, got = question.outputs[tensor.name], outputs[tensor.name]
        if got.shape != want.shape or got.dtype != expected_type(tensor.dtype):
            return CellError(
                cell,
                f"{tensor.name}: expected {tensor.dtype} {want.shape}, got {got.dtype} {got.shape}",
            )
    return outputs


class _Comparison:
    """What the questions of one rung add up to."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self.differences = {
            tensor.name: _Differences(tensor, candidate.tolerances[tensor.name])
            for tensor in candidate.graph.outputs
        }
        self.decisions = 0
        self.flipped = 0
        self.widest_flip_margin = 0.0
        self.flips: list[Flip] = []
        self.errors: list[CellError] = []
        self.faults: dict[str, Cell] = {}
        self._questions: dict[str, Question] = {}

    def add(self, question: Question, outputs: Arrays) -> None:
        candidate, cell = self._candidate, str(question.cell)
        parity, manifest = candidate.spec.parity, candidate.artifact.manifest
        for name, difference in self.differences.items():
            tolerance = candidate.tolerances[name]
            scale = row_scale(candidate.graph, question.inputs, tolerance)
            if difference.add(cell, question.outputs[name], outputs[name], scale):
                self._questions[cell] = question
        for fault in parity.faults(manifest, question.inputs, outputs):
            self.faults.setdefault(fault, question.cell)
        wanted = question.decisions
        got = parity.decide(manifest, question.inputs, outputs)
        self.decisions += wanted.values.size
        for row, column in zip(*np.nonzero(wanted.values != got.values), strict=True):
            self.flipped += 1
            margin = float(wanted.margins[row, column])
            self.widest_flip_margin = max(self.widest_flip_margin, margin)
            if len(self.flips) < FLIPS_KEPT:
                self.flips.append(
                    Flip(
                        cell,
                        int(row),
                        int(column),
                        int(wanted.values[row, column]),
                        int(got.values[row, column]),
                        margin,
                        parity.describe(candidate.artifact, question.inputs, int(row)),
                    )
                )

    def worst_rows(self) -> list[WorstRow]:
        candidate = self._candidate
        rows = []
        for name, difference in self.differences.items():
            for value, cell, row in difference.worst():
                text = candidate.spec.parity.describe(
                    candidate.artifact, self._questions[cell].inputs, row
                )
                rows.append(WorstRow(name, cell, row, value, text))
        return rows


class _Differences:
    """All |Δ| of one output tensor over the grid."""

    def __init__(self, tensor: Tensor, tolerance: Tolerance) -> None:
        self.tensor = tensor
        self._tolerance = tolerance
        self._parts: list[np.ndarray] = []
        self._maximum = self._maximum_own_unit = 0.0
        self._worst_cell = ""
        self._nan_mismatches = 0
        self._worst: list[tuple[float, str, int]] = []

    def add(
        self, cell: str, expected: np.ndarray, got: np.ndarray, scale: np.ndarray | None
    ) -> bool:
        """Returns whether one of the rows is among the worst so far."""
        scaled, own, mismatched = scaled_difference(expected, got, scale)
        self._nan_mismatches += int(mismatched.sum())
        self._parts.append(scaled.astype(np.float32).ravel())
        per_row = scaled.reshape(len(scaled), -1).max(axis=1)
        row = int(per_row.argmax())
        largest = float(per_row[row])
        if not self._worst_cell or largest > self._maximum:
            self._maximum, self._worst_cell = largest, cell
            # Of the worst row: windows of 1e12 would drown all others.
            self._maximum_own_unit = float(own[row].max())
        entry = (largest, cell, row)
        if largest > 0 and len(self._worst) < WORST_KEPT:
            heapq.heappush(self._worst, entry)
        elif largest > 0 and entry > self._worst[0]:
            heapq.heapreplace(self._worst, entry)
        return entry in self._worst

    def worst(self) -> list[tuple[float, str, int]]:
        return sorted(self._worst, reverse=True)

    def result(self) -> TensorResult:
        every = np.concatenate(self._parts) if self._parts else np.zeros(1, np.float32)
        tolerance = self._tolerance
        edges = [-np.inf, *HISTOGRAM_EDGES, np.inf]
        counts = np.histogram(every, bins=np.array(edges))[0]
        return TensorResult(
            name=self.tensor.name,
            maximum=self._maximum,
            percentile_99_9=float(np.percentile(every, 99.9)),
            allowed_maximum=tolerance.maximum,
            allowed_percentile_99_9=tolerance.percentile_99_9,
            worst_cell=self._worst_cell,
            nan_mismatches=self._nan_mismatches,
            maximum_own_unit=self._maximum_own_unit,
            unit=self.tensor.unit,
            relative_to_input=tolerance.relative_to_input,
            histogram=tuple(int(count) for count in counts),
        )
