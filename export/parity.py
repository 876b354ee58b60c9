"""Does an exported model decide as the PyTorch one? The grid, and the comparison of one rung."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from contract.errors import PresageError
from contract.manifest import Graph, Tensor
from export.candidate import Candidate
from export.ladder import Rung, expected_type
from export.report import CellError, Flip, RungResult, TensorResult
from training.spec import Arrays, Decisions, Padding

PADDINGS: tuple[Padding, ...] = ("none", "half", "most")
# Below this share of the window's largest value a difference is float32's last digits.
SMALLEST_SPREAD_SHARE = 1e-3
FLIPS_KEPT = 20

Tick = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """One corner of the grid: golden rows cut to ``length`` with a share of padding."""

    batch: int
    length: int
    padding: Padding

    def __str__(self) -> str:
        return f"(batch={self.batch}, length={self.length}, padding={self.padding})"


def grid(graph: Graph) -> list[Cell]:
    """Batches × lengths × paddings of the graph, within what it accepts."""
    batches = sorted({min(size, graph.max_batch_size) for size in graph.parity_batches})
    lengths = sorted({min(size, graph.max_length) for size in graph.parity_lengths})
    return [
        Cell(batch, length, padding)
        for batch in batches
        for length in lengths
        for padding in PADDINGS
    ]


@dataclass
class Reference:
    """Inputs and eager answers of every cell, computed once and compared with each rung."""

    candidate: Candidate
    cells: list[Cell]
    inputs: list[Arrays] = field(default_factory=list)
    outputs: list[Arrays] = field(default_factory=list)
    decisions: list[Decisions] = field(default_factory=list)

    @classmethod
    def compute(cls, candidate: Candidate, eager: Rung, tick: Tick) -> Reference:
        reference = cls(candidate, grid(candidate.graph))
        spec, manifest = candidate.spec, candidate.artifact.manifest
        for cell in reference.cells:
            inputs = spec.parity_inputs(candidate.artifact, cell.batch, cell.length, cell.padding)
            outputs = eager.run(inputs)
            reference.inputs.append(inputs)
            reference.outputs.append(outputs)
            reference.decisions.append(spec.decide(manifest, inputs, outputs))
            tick()
        return reference


def compare(reference: Reference, rung: Rung, file: str, tick: Tick) -> RungResult:
    """Run every cell on ``rung`` and hold it against eager, per tensor and per decision.

    A cell that raises, or answers other shapes or types, fails the rung; it does not end it.
    """
    graph = reference.candidate.graph
    spec, manifest = reference.candidate.spec, reference.candidate.artifact.manifest
    differences = {tensor.name: _Differences(tensor) for tensor in graph.outputs}
    errors: list[CellError] = []
    flips: list[Flip] = []
    flipped = decisions = 0
    started = time.perf_counter()
    for i, cell in enumerate(reference.cells):
        tick()
        inputs, expected = reference.inputs[i], reference.outputs[i]
        try:
            outputs = rung.run(inputs)
        except (PresageError, RuntimeError, ValueError, TypeError, IndexError) as error:
            errors.append(CellError(str(cell), (str(error).splitlines() or ["failed"])[0]))
            continue
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            errors.append(CellError(str(cell), f"{type(error).__name__}: {error}"[:300]))
            continue
        wrong = _wrong_shape(graph.outputs, expected, outputs)
        if wrong is not None:
            errors.append(CellError(str(cell), wrong))
            continue
        scale = _spread(graph.inputs, inputs)
        for tensor in graph.outputs:
            relative = graph.tolerances[tensor.name].relative_to_input
            differences[tensor.name].add(
                str(cell), expected[tensor.name], outputs[tensor.name], scale if relative else None
            )
        wanted = reference.decisions[i]
        got = spec.decide(manifest, inputs, outputs)
        decisions += wanted.values.size
        for row, column in zip(*np.nonzero(wanted.values != got.values), strict=True):
            flipped += 1
            if len(flips) < FLIPS_KEPT:
                flips.append(
                    Flip(
                        str(cell),
                        int(row),
                        int(column),
                        int(wanted.values[row, column]),
                        int(got.values[row, column]),
                        float(wanted.margins[row, column]),
                    )
                )
    tensors = [
        difference.result(
            graph.tolerances[difference.tensor.name].maximum,
            graph.tolerances[difference.tensor.name].percentile_99_9,
        )
        for difference in differences.values()
    ]
    return RungResult(
        rung=rung.name,
        against="eager",
        file=file,
        cells=len(reference.cells),
        rows=sum(cell.batch for cell in reference.cells),
        seconds=time.perf_counter() - started,
        tensors=tensors,
        decisions=decisions,
        flipped=flipped,
        flips=flips,
        errors=errors,
    )


class _Differences:
    """All |Δ| of one output tensor over the grid."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._parts: list[np.ndarray] = []
        self._maximum = 0.0
        self._worst_cell = ""
        self._nan_mismatches = 0

    def add(
        self, cell: str, expected: np.ndarray, got: np.ndarray, scale: np.ndarray | None
    ) -> None:
        want, have = expected.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(want) & np.isfinite(have)
        # NaN beside NaN and inf beside the same inf agree; nothing else that is not finite does.
        same = (np.isnan(want) & np.isnan(have)) | (want == have)
        self._nan_mismatches += int((~finite & ~same).sum())
        delta = np.zeros_like(want)
        np.subtract(want, have, out=delta, where=finite)
        np.abs(delta, out=delta)
        if scale is not None:
            delta /= scale.reshape(-1, *(1,) * (delta.ndim - 1))
        self._parts.append(delta.astype(np.float32).ravel())
        largest = float(delta.max(initial=0.0))
        if not self._worst_cell or largest > self._maximum:
            self._maximum, self._worst_cell = largest, cell

    def result(self, maximum: float, percentile: float) -> TensorResult:
        every = np.concatenate(self._parts) if self._parts else np.zeros(1, np.float32)
        return TensorResult(
            name=self.tensor.name,
            maximum=self._maximum,
            percentile_99_9=float(np.percentile(every, 99.9)),
            allowed_maximum=maximum,
            allowed_percentile_99_9=percentile,
            worst_cell=self._worst_cell,
            nan_mismatches=self._nan_mismatches,
        )


def _wrong_shape(tensors: Iterable[Tensor], expected: Arrays, outputs: Arrays) -> str | None:
    for tensor in tensors:
        want, got = expected[tensor.name], outputs[tensor.name]
        if got.shape != want.shape or got.dtype != expected_type(tensor.dtype):
            return (
                f"{tensor.name}: expected {tensor.dtype} {want.shape}, got {got.dtype} {got.shape}"
            )
    return None


def _spread(tensors: tuple[Tensor, ...], inputs: Arrays) -> np.ndarray:
    """Standard deviation of each row of the first FP32 input, (batch,); never 0."""
    first = next((tensor.name for tensor in tensors if tensor.dtype == "FP32"), None)
    if first is None:
        return np.ones(len(next(iter(inputs.values()))))
    rows = inputs[first].astype(np.float64).reshape(len(inputs[first]), -1)
    known = np.isfinite(rows)
    values = np.where(known, rows, 0.0)
    count = np.maximum(known.sum(1), 1)
    mean = values.sum(1) / count
    deviation = np.sqrt((np.where(known, rows - mean[:, None], 0.0) ** 2).sum(1) / count)
    floor = SMALLEST_SPREAD_SHARE * np.abs(values).max(1)
    spread = np.maximum(deviation, floor)
    return np.where(spread > 0, spread, 1.0)
