"""Does a row's answer depend on its neighbours, or change when it is asked again?"""

from __future__ import annotations

import numpy as np

from export.candidate import Candidate
from export.difference import row_scale, scaled_difference
from export.grid import STABILITY_ROWS
from export.ladder import Rung
from export.verdict import Stability
from training.spec import Arrays

REPEATS = 3


def stability(candidate: Candidate, strangers: Arrays, rung: Rung) -> list[Stability]:
    """Ask rows one by one, in a batch of strangers, in that batch turned round, and again."""
    rows = len(next(iter(strangers.values())))
    asked = min(STABILITY_ROWS, max(1, rows // 2))
    alone = _stack([rung.run(_rows(strangers, slice(i, i + 1))) for i in range(asked)])
    together = [rung.run(strangers) for _ in range(REPEATS)]
    # The same rows at other places of the batch, next to other neighbours.
    turned = rung.run(_rows(strangers, slice(None, None, -1)))
    among = [together[0], {name: array[::-1] for name, array in turned.items()}]
    results = []
    for tensor in candidate.graph.outputs:
        name, tolerance = tensor.name, candidate.tolerances[tensor.name]
        scale = row_scale(candidate.graph, strangers, tolerance, level=True)
        apart = np.stack(
            [
                _per_row(
                    alone[name], answers[name][:asked], None if scale is None else scale[:asked]
                )
                for answers in among
            ]
        ).max(axis=0)
        again = max(
            float(_per_row(together[0][name], other[name], scale).max()) for other in together[1:]
        )
        results.append(
            Stability(name, float(apart.max()), again, tolerance.invariance, int(apart.argmax()))
        )
    return results


def _per_row(expected: np.ndarray, got: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """Largest difference of each row, (rows,); NaN or infinity in one only is infinite."""
    delta, _, mismatched = scaled_difference(expected, got, scale)
    rows = len(delta)
    return np.where(mismatched.reshape(rows, -1).any(1), np.inf, delta.reshape(rows, -1).max(1))


def _rows(arrays: Arrays, which: slice) -> Arrays:
    return {name: np.ascontiguousarray(array[which]) for name, array in arrays.items()}


def _stack(answers: list[Arrays]) -> Arrays:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
