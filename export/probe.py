"""Looks inside an ONNX graph while it runs: every value, on rows that are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from contract.manifest import Graph
from export.difference import row_scale, scaled_difference
from training.spec import Arrays


def session(model: onnx.ModelProto, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """On CPU, one thread. ``optimised=False`` runs the graph node by node, as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answers(running: Any, batches: Sequence[Arrays]) -> list[Arrays]:
    """{output: array} per batch."""
    names = [output.name for output in running.get_outputs()]
    return [dict(zip(names, running.run(names, rows), strict=True)) for rows in batches]


def exposed(model: onnx.ModelProto, names: Iterable[str], inputs: Arrays) -> Arrays:
    """The named values (inputs of the graph among them) of one batch; absent ones are left out."""
    wanted = set(names)
    probed = with_outputs(model, wanted)
    (values,) = answers(session(probed, optimised=False), [inputs])
    return {name: array for name, array in (inputs | values).items() if name in wanted}


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy whose outputs are the named values too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    produced = {name for node in model.graph.node for name in node.output if name}
    known = {value.name for value in model.graph.output}
    # Without a type: ONNX Runtime infers it.
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in sorted(set(names) & produced - known)
    )
    return copy


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Initializers and the results of Constant nodes, by the name that nodes read them under."""
    held = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                held[tensor.name] = tensor
    return held


def share_of_tolerance(
    graph: Graph, batches: Sequence[Arrays], wanted: Sequence[Arrays], got: Sequence[Arrays]
) -> float:
    """How much of what a reduced precision may differ by is used up: 1 is all of it.

    The worse of the maximum and the 99.9th percentile, over all rows; infinite where one answer is
    NaN or infinite and the other is not.
    """
    worst = 0.0
    for tensor in graph.outputs:
        tolerance = graph.reduced_tolerances.get(tensor.name, graph.tolerances[tensor.name])
        differences = []
        for inputs, expected, answered in zip(batches, wanted, got, strict=True):
            scale = row_scale(graph, inputs, tolerance)
            scaled, _, unlike = scaled_difference(
                expected[tensor.name], answered[tensor.name], scale
            )
            if unlike.any():
                return float("inf")
            differences.append(scaled.ravel())
        pooled = np.concatenate(differences)
        for difference, allowed in (
            (pooled.max(initial=0.0), tolerance.maximum),
            (np.quantile(pooled, 0.999) if pooled.size else 0.0, tolerance.percentile_99_9),
        ):
            if difference > 0:
                worst = max(worst, float(difference) / max(allowed, np.finfo(float).tiny))
    return worst
