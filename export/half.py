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


@dataclass(frozen=True)
class Fp32Fallback:
    """An operator that stays fp32, and why."""

    node: str
    op_type: str
    reason: str


def convert_half(path: Path, graph: Graph, calibration: Sequence[Arrays]) -> list[Fp32Fallback]:
    """Rewrite a (fused) fp32 file in place; what stays fp32, with its reason.

    calibration: batches of the graph's inputs; an operator that reads or makes a value beyond
    fp16's range on any of them stays fp32

    Raises:
        ExportError: it cannot be converted.
    """
    try:
        model = onnx.load(str(path))
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        kept = _overflowing(model, calibration)
        with quiet():
            from onnxruntime.transformers.float16 import (
                DEFAULT_OP_BLOCK_LIST,
                convert_float_to_float16,
            )

            half = convert_float_to_float16(
                model,
                keep_io_types=True,
                op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_OPERATORS],
                node_block_list=[one.node for one in kept],
            )
        path.write_bytes(half.SerializeToString())
    except Exception as error:  # onnx, protobuf and ONNX Runtime each raise their own
        raise ExportError(
            f"{graph.triton_name}: fp16 conversion failed",
            where=str(path),
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            next_command="use --target cpu",
        ) from error
    return kept


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
