"""Target ``gpu``: fp16 inside, fp32 inputs and outputs, fp32 kept where a value would overflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from contract.errors import ExportError
from contract.manifest import Graph
from export.onnx_export import quiet
from training.spec import Arrays

LARGEST_HALF = 65504.0
# Its converter makes a graph that does not load where these become fp16.
_KEPT_OPERATORS = ("LSTM", "CumSum", "Range", "Pad", "ConstantOfShape")
# A graph that normalises its own inputs sees values in the metric's unit (bytes: 1e12) and takes
# differences of them: there only these, which read normalised values, become fp16.
_MATRIX_OPERATORS = ("MatMul", "Gemm", "Conv")


@dataclass(frozen=True)
class Fp32Fallback:
    """An operator that stays fp32, and why."""

    node: str
    op_type: str
    reason: str


def convert_half(
    path: Path, graph: Graph, calibration: Sequence[Arrays], *, matrices_only: bool
) -> list[Fp32Fallback]:
    """Rewrite a (fused) fp32 file in place; what stays fp32, with its reason.

    calibration: batches of the graph's inputs; an operator that reads or makes a value beyond
    fp16's range on any of them stays fp32
    matrices_only: the graph reads values of any unit: everything but its matrix products stays

    Raises:
        ExportError: it cannot be converted.
    """
    try:
        model = onnx.load(str(path))
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        kept = _overflowing(model, calibration)
        if matrices_only:
            kept = [one for one in kept if one.op_type in _MATRIX_OPERATORS]
            half = _with_half_matrices(model, {one.node for one in kept})
        else:
            half = _converted(model, [one.node for one in kept])
        path.write_bytes(half.SerializeToString())
    except Exception as error:  # onnx, protobuf and ONNX Runtime each raise their own
        raise ExportError(
            f"{graph.triton_name}: fp16 conversion failed",
            where=str(path),
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            next_command="use --target cpu",
        ) from error
    return kept


def _converted(model: onnx.ModelProto, kept: list[str]) -> onnx.ModelProto:
    """Everything in fp16 but the inputs, the outputs and ``kept``."""
    with quiet():
        from onnxruntime.transformers.float16 import (
            DEFAULT_OP_BLOCK_LIST,
            convert_float_to_float16,
        )
        from onnxruntime.transformers.onnx_model import OnnxModel

        half: Any = OnnxModel(
            convert_float_to_float16(
                model,
                keep_io_types=True,
                op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_OPERATORS],
                node_block_list=kept,
            )
        )
        _join_fp32(half.model)
        # The converter appends its casts; a loader wants each before its reader.
        half.topological_sort()
    joined: onnx.ModelProto = half.model
    return joined


def _join_fp32(model: onnx.ModelProto) -> None:
    """From one kept operator to the next a value stays fp32: the converter rounds it in between,
    and what overflowed there is lost."""
    rounded = {node.output[0]: node.input[0] for node in _casts(model, onnx.TensorProto.FLOAT16)}
    joined = {
        node.output[0]: rounded[node.input[0]]
        for node in _casts(model, onnx.TensorProto.FLOAT)
        if node.input[0] in rounded
    }
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = joined.get(name, name)


def _casts(model: onnx.ModelProto, dtype: int) -> list[onnx.NodeProto]:
    return [
        node
        for node in model.graph.node
        if node.op_type == "Cast"
        and any(one.name == "to" and one.i == dtype for one in node.attribute)
    ]


def _with_half_matrices(model: onnx.ModelProto, kept: set[str]) -> onnx.ModelProto:
    """fp32 everywhere but inside matrix products, each between casts of its own.

    ONNX Runtime's converter will not do: it also rounds the graph's inputs, whatever reads them.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    halved: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in _MATRIX_OPERATORS or node.name in kept:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name and name not in halved:
                halved[name] = f"{name}__fp16"
                if name in weights:
                    value = numpy_helper.to_array(weights[name]).astype(np.float16)
                    model.graph.initializer.append(numpy_helper.from_array(value, halved[name]))
                else:
                    nodes.append(_cast(name, halved[name], onnx.TensorProto.FLOAT16))
            if name:
                node.input[index] = halved[name]
        result = node.output[0]
        node.output[0] = f"{result}__fp16"
        nodes += [node, _cast(node.output[0], result, onnx.TensorProto.FLOAT)]
    read = {name for node in nodes for name in node.input}
    used = [weight for weight in model.graph.initializer if weight.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(used)
    return model


def _cast(source: str, result: str, dtype: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=dtype)


def _overflowing(model: onnx.ModelProto, calibration: Sequence[Arrays]) -> list[Fp32Fallback]:
    largest = _largest_values(model, calibration)
    kept = []
    for node in model.graph.node:
        reached = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if reached > LARGEST_HALF:
            reason = f"largest value {reached:.1e} > {LARGEST_HALF:.0f}"
            kept.append(Fp32Fallback(node.name, node.op_type, reason))
    return kept


def _largest_values(model: onnx.ModelProto, calibration: Sequence[Arrays]) -> dict[str, float]:
    """Largest finite magnitude of every float value over the calibration, weights included."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                probe.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    largest = {
        weight.name: _magnitude(numpy_helper.to_array(weight)) for weight in model.graph.initializer
    }
    for inputs in calibration:
        values = {**inputs, **dict(zip(names, session.run(names, inputs), strict=True))}
        for name, value in values.items():
            largest[name] = max(largest.get(name, 0.0), _magnitude(value))
    return largest


def _magnitude(value: Any) -> float:
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.size == 0:
        return 0.0
    return float(np.abs(np.where(np.isfinite(array), array, 0.0)).max())
