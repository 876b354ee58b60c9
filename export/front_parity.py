"""The last rung of a text model: the served front against the same front over eager PyTorch."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from contract.errors import PresageError
from contract.manifest import Front
from export.candidate import Candidate
from export.ladder import Rung
from export.verdict import CellError, Flip, RungResult, TensorResult
from export.wire import WireClient
from training.spec import Arrays

CELL = "golden questions"


def compare_front(
    candidate: Candidate, front: Front, eager: Rung, client: WireClient, version: str = ""
) -> RungResult:
    """Ask the golden questions both ways; labels and texts must be equal, numbers within tolerance.

    Numbers inside JSON texts count as numbers, everything else as a decision.
    """
    tolerance = candidate.tolerances[candidate.graph.outputs[0].name]
    started = time.perf_counter()
    comparison = AnswerComparison()
    errors: list[CellError] = []
    requests = front_requests(front, candidate.spec.golden_questions(candidate.artifact))
    local = local_front(candidate, front, eager)
    types = {tensor.name: tensor.dtype for tensor in front.inputs}
    names = {tensor.name: tensor.name for tensor in front.outputs}
    for number, inputs in enumerate(requests):
        expected = local.answer([inputs])[0]
        try:
            if isinstance(expected, Exception):
                raise expected
            got = client.infer(front.triton_name, inputs, types, names, version)
        except PresageError as error:
            errors.append(CellError(CELL, str(error)))
            continue
        for name in names:
            comparison.add(number, name, expected[name], got[name])
    result = TensorResult(
        name="numbers",
        maximum=comparison.maximum,
        percentile_99_9=float(np.percentile(comparison.differences or [0.0], 99.9)),
        allowed_maximum=tolerance.maximum,
        allowed_percentile_99_9=max(tolerance.percentile_99_9, tolerance.maximum),
        worst_cell=comparison.worst,
        nan_mismatches=0,
    )
    return RungResult(
        rung="front",
        against="eager",
        file=front.triton_name,
        cells=len(requests),
        rows=sum(len(next(iter(inputs.values()))) for inputs in requests),
        seconds=time.perf_counter() - started,
        tensors=[result],
        decisions=comparison.decisions,
        flipped=len(comparison.flips),
        served_by=f"tritonserver, {client.protocol}, text in, answer out",
        allowed_flip_share=candidate.target.allowed_flip_share,
        allowed_flip_margin=candidate.target.allowed_flip_margin,
        flips=comparison.flips[:20],
        errors=errors,
    )


def local_front(candidate: Candidate, front: Front, eager: Rung) -> Any:
    names = [tensor.name for tensor in candidate.graph.inputs]
    output = candidate.graph.outputs[0].name

    def classify(chunks: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        return [eager.run(dict(zip(names, chunk, strict=True)))[output] for chunk in chunks]

    return importlib.import_module(front.module).Front(candidate.artifact.path, classify)


def front_requests(front: Front, questions: Any) -> list[Arrays]:
    """Golden questions as requests of at most ``max_batch_size`` rows of one text each."""
    first = next(tensor.name for tensor in front.inputs if not tensor.optional)
    texts = [
        question[first] if isinstance(question, Mapping) else question for question in questions
    ]
    column = np.array([str(text).encode() for text in texts], dtype=object).reshape(-1, 1)
    size = front.max_batch_size
    return [{first: column[start : start + size]} for start in range(0, len(column), size)]


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
            where = f"{name}, golden question {row}"
            for want, have in zip(expected[row].ravel(), got[row].ravel(), strict=True):
                if isinstance(want, bytes):
                    self._compare(where, row, _parsed(want), _parsed(have))
                else:
                    self._compare(where, row, float(want), float(have))

    def _compare(self, where: str, row: int, want: Any, have: Any) -> None:
        if isinstance(want, dict) and isinstance(have, dict) and want.keys() == have.keys():
            for key in want:
                self._compare(f"{where}, {key}", row, want[key], have[key])
        elif isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
            for one, other in zip(want, have, strict=True):
                self._compare(where, row, one, other)
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
