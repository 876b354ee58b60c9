"""Absolute differences of answers, in the unit a tolerance is stated in."""

from __future__ import annotations

import numpy as np

from contract.manifest import Graph, Tolerance
from training.spec import Arrays

# Below this share of the window's largest value a difference is float32's last digits.
SMALLEST_SPREAD_SHARE = 1e-3


def row_scale(
    graph: Graph, inputs: Arrays, tolerance: Tolerance, *, level: bool = False
) -> np.ndarray | None:
    """What each row's difference is divided by, (rows,): None for an absolute tolerance.

    ``level``: by the window's largest value, where float32's own digits are asked for.
    """
    if not tolerance.relative_to_input:
        return None
    first = next((tensor.name for tensor in graph.inputs if tensor.dtype == "FP32"), None)
    if first is None:
        return None
    rows = inputs[first].astype(np.float64).reshape(len(inputs[first]), -1)
    known = np.isfinite(rows)
    values = np.where(known, rows, 0.0)
    largest = np.abs(values).max(axis=1)
    if level:
        return np.where(largest > 0, largest, 1.0)
    count = np.maximum(known.sum(axis=1), 1)
    mean = values.sum(axis=1) / count
    variance = (np.where(known, rows - mean[:, None], 0.0) ** 2).sum(axis=1) / count
    spread = np.maximum(np.sqrt(variance), SMALLEST_SPREAD_SHARE * largest)
    return np.where(spread > 0, spread, 1.0)


def scaled_difference(
    expected: np.ndarray, got: np.ndarray, scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(|Δ| / scale, |Δ| in the output's own unit, NaN or infinite in one only), all of its shape.

    NaN beside NaN and inf beside the same inf agree; nothing else that is not finite does.
    """
    want, have = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(want) & np.isfinite(have)
    same = (np.isnan(want) & np.isnan(have)) | (want == have)
    own = np.zeros_like(want)
    np.subtract(want, have, out=own, where=finite)
    np.abs(own, out=own)
    scaled = own if scale is None else own / scale.reshape(-1, *(1,) * (own.ndim - 1))
    return scaled, own, ~finite & ~same
