"""The last rung of a text model: the served front against the same front over eager PyTorch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from contract.errors import PresageError
from contract.manifest import Front
from export.agreement import CELL, AnswerComparison
from export.candidate import Candidate
from export.ladder import Rung
from export.verdict import CellError, RungResult, TensorResult
from export.wire import WireClient
from training.spec import Arrays


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
