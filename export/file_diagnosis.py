"""Why a file answers wrongly: what differs between it and a fresh export of the same network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from contract.errors import PresageError
from export.inspection import graph_nodes
from training.spec import Arrays

_NAMES_SHOWN = 3


def causes_in_file(path: Path, fresh: Path) -> list[str]:
    """Operators that are missing or extra, and weights that are other ones. Empty: none seen."""
    try:
        got, wanted = onnx.load(str(path)), onnx.load(str(fresh))
    except Exception:  # not an ONNX file: inspection has said so
        return []
    return [*_weights(got, wanted), *_operators(got, wanted)]


def overflows(path: Path, inputs: Arrays) -> dict[str, str]:
    """Operators whose result is NaN or infinite although what they read is finite, in order:
    {result: operator}. A sound graph has some too (the logarithm of 0)."""
    model = onnx.load(str(path))
    produced = [name for node in model.graph.node for name in node.output if name]
    known = {value.name for value in model.graph.output}
    for name in produced:
        if name not in known:
            model.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        values = dict(zip(names, session.run(names, inputs), strict=True))
    except (PresageError, Exception):
        return {}
    found = {}
    for node in model.graph.node:
        for name in node.output:
            value = values.get(name)
            if value is None or not np.issubdtype(np.asarray(value).dtype, np.floating):
                continue
            sources = [values[source] for source in node.input if source in values]
            finite = all(
                np.isfinite(np.asarray(source, dtype=np.float64)).all()
                for source in sources
                if np.issubdtype(np.asarray(source).dtype, np.number)
            )
            if finite and not np.isfinite(np.asarray(value)).all():
                found[name] = f"{node.op_type} {node.name or name!r}"
    return found


def _weights(got: onnx.ModelProto, wanted: onnx.ModelProto) -> Iterator[str]:
    ours = {weight.name: numpy_helper.to_array(weight) for weight in got.graph.initializer}
    theirs = {weight.name: numpy_helper.to_array(weight) for weight in wanted.graph.initializer}
    shared = [name for name in theirs if name in ours and theirs[name].dtype.kind == "f"]
    changed = [name for name in shared if not _equal(ours[name], theirs[name])]
    reordered = [
        name
        for name in changed
        if ours[name].size == theirs[name].size
        and np.array_equal(np.sort(ours[name].ravel()), np.sort(theirs[name].ravel()))
    ]
    lstm = {
        name for node in graph_nodes(got.graph) if node.op_type == "LSTM" for name in node.input
    }
    if reordered:
        kind = (
            "LSTM gates are in another order"
            if set(reordered) & lstm
            else "weights are in another order"
        )
        yield f"{kind}: {_listed(reordered)}"
    other = [name for name in changed if name not in set(reordered)]
    if len(shared) > 1 and len(other) > len(shared) // 2:
        narrowed = sum(_is_narrowed(ours[name], theirs[name]) for name in other)
        what = (
            "weights were rounded to a narrower type"
            if narrowed > len(other) // 2
            else "weights of another run"
        )
        yield f"{what}: {len(other)} of {len(shared)} weight tensors are other numbers"
    elif other:
        yield f"{len(other)} of {len(shared)} weight tensors are other numbers: {_listed(other)}"


def _operators(got: onnx.ModelProto, wanted: onnx.ModelProto) -> Iterator[str]:
    ours = Counter(node.op_type for node in graph_nodes(got.graph))
    theirs = Counter(node.op_type for node in graph_nodes(wanted.graph))
    lost, extra = theirs - ours, ours - theirs
    if lost["LSTM"]:
        yield f"an LSTM layer is lost: {ours['LSTM']} of {theirs['LSTM']}"
    if lost or extra:
        words = [f"{count} {name} missing" for name, count in lost.items()]
        words += [f"{count} {name} too many" for name, count in extra.items()]
        yield f"operators differ from a fresh export: {', '.join(words[:6])}"


def _equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and np.array_equal(ours, theirs, equal_nan=True)


def _is_narrowed(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """The same numbers but for a rounding step far smaller than they are."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return False
    return float(np.abs(ours - theirs).max()) <= 0.25 * float(np.abs(theirs).max())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
