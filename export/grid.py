"""The inputs of the parity ladder: a grid of golden rows, edge rows, and eager's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from contract.manifest import Graph
from export.candidate import Candidate
from export.ladder import Rung
from training.spec import Arrays, Decisions, Padding

PADDINGS: tuple[Padding, ...] = ("none", "half", "most")
# Rows of the stability check: each alone, then the same among strangers.
STABILITY_ROWS = 12

Tick = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """Golden rows cut to ``length`` with a share of padding, or the edge rows named ``edge``."""

    batch: int
    length: int
    padding: Padding = "none"
    edge: str = ""

    def __str__(self) -> str:
        if self.edge:
            return f"(batch={self.batch}, length={self.length}, edge={self.edge})"
        return f"(batch={self.batch}, length={self.length}, padding={self.padding})"


def grid(graph: Graph) -> list[Cell]:
    """Batches × lengths × paddings, within what the graph accepts."""
    batches = {size for size in graph.parity_batches if size < graph.max_batch_size}
    lengths = {size for size in graph.parity_lengths if size < graph.max_length}
    return [
        Cell(batch, length, padding)
        for batch in sorted(batches | {graph.max_batch_size})
        for length in sorted(lengths | {graph.max_length})
        for padding in PADDINGS
    ]


@dataclass(frozen=True)
class Question:
    """One cell with its inputs and what eager answered and decided."""

    cell: Cell
    inputs: Arrays
    outputs: Arrays
    decisions: Decisions

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass
class Reference:
    """Every cell with eager's answers: computed once, held against each rung.

    ``strangers``: rows of one length for the stability check, the first STABILITY_ROWS are asked.
    """

    candidate: Candidate
    questions: list[Question] = field(default_factory=list)
    strangers: Arrays = field(default_factory=dict)

    @classmethod
    def compute(cls, candidate: Candidate, eager: Rung, tick: Tick) -> Reference:
        parity, artifact, graph = candidate.spec.parity, candidate.artifact, candidate.graph
        reference = cls(candidate)
        for cell in grid(graph):
            inputs = parity.inputs(artifact, cell.batch, cell.length, cell.padding)
            reference._add(cell, inputs, eager)
            tick()
        for name, inputs in parity.edges(artifact).items():
            first = next(iter(inputs.values()))
            reference._add(Cell(*_size(graph, first), edge=name), inputs, eager)
            tick()
        reference.strangers = strangers(candidate)
        return reference

    def _add(self, cell: Cell, inputs: Arrays, eager: Rung) -> None:
        outputs = eager.run(inputs)
        decisions = self.candidate.spec.parity.decide(
            self.candidate.artifact.manifest, inputs, outputs
        )
        self.questions.append(Question(cell, inputs, outputs, decisions))


def cells(candidate: Candidate) -> int:
    """How many questions a rung is asked."""
    return len(grid(candidate.graph)) + len(candidate.spec.parity.edges(candidate.artifact))


def _size(graph: Graph, first: np.ndarray) -> tuple[int, int]:
    length = first.shape[1] if -1 in graph.inputs[0].dims else graph.max_length
    return len(first), length


def strangers(candidate: Candidate) -> Arrays:
    """Rows to be asked first, then rows as unlike them as there are: padded and edge rows."""
    parity, artifact, graph = candidate.spec.parity, candidate.artifact, candidate.graph
    length = graph.max_length
    asked = min(STABILITY_ROWS, max(1, graph.max_batch_size // 2))
    parts = [
        parity.inputs(artifact, asked, length, "none"),
        parity.inputs(artifact, 2, length, "half"),
        parity.inputs(artifact, 2, length, "most"),
    ]
    width = {name: array.shape[1:] for name, array in parts[0].items()}
    for inputs in parity.edges(artifact).values():
        if all(inputs[name].shape[1:] == shape for name, shape in width.items()):
            parts.append({name: array[:2] for name, array in inputs.items()})
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: array[: graph.max_batch_size] for name, array in rows.items()}
