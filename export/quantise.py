"""Int8 weights with a scale per channel, for the targets that compute with them.

``cpu-int8``: ONNX Runtime quantises activations as they come, with one scale for the whole tensor,
so a row's answer depends on its neighbours in the batch; how much is bounded by
``Tolerance.invariance`` of the graph's reduced tolerances.

``cpu-openvino-int8``: only the weights are in the file; OpenVINO quantises the activations, token
by token (``config_pbtxt.GROUP_SIZE``), and computes the rest in bf16.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from contract.errors import ExportError
from contract.manifest import Graph
from export.onnx_export import quiet

# fp32 operator → what it is once it computes with int8 weights. Gather only shrinks the file: its
# rows are expanded before use. A Gemm becomes a MatMul first.
_QUANTISED = {"MatMul": "MatMulInteger", "LSTM": "DynamicQuantizeLSTM", "Conv": "ConvInteger"}


@dataclass(frozen=True)
class QuantisedCounts:
    """How many of each fp32 operator now compute with int8 weights, and what that saves."""

    operators: dict[str, int]
    size_before_bytes: int
    size_after_bytes: int

    def __str__(self) -> str:
        operators = ", ".join(f"{count} {name}" for name, count in self.operators.items())
        before, after = (
            size / (1 << 20) for size in (self.size_before_bytes, self.size_after_bytes)
        )
        return f"{operators} with int8 weights, {before:.1f} → {after:.1f} MiB"


def quantise_dynamic(path: Path, graph: Graph) -> QuantisedCounts:
    """Rewrite a plain fp32 export (opset 17, not fused) in place.

    Raises:
        ExportError: not a file that can be quantised, or nothing in it was.
    """
    return _rewrite(path, graph, _quantise)


def quantise_weights(path: Path, graph: Graph) -> QuantisedCounts:
    """The same for OpenVINO: int8 weights, expanded in the file before each product."""
    return _rewrite(path, graph, _shrink_weights)


def _rewrite(
    path: Path, graph: Graph, quantise: Callable[[onnx.ModelProto, Path], dict[str, int]]
) -> QuantisedCounts:
    before = path.stat().st_size if path.is_file() else 0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as scratch, quiet():
        target = Path(scratch) / path.name
        try:
            counts = quantise(onnx.load(str(path)), target)
        except Exception as error:  # onnx, protobuf and ONNX Runtime each raise their own
            raise ExportError(
                f"{graph.triton_name}: the export cannot be quantised",
                where=str(path),
                got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            ) from error
        if not counts:
            raise ExportError(
                f"{graph.triton_name}: nothing was quantised",
                where=str(path),
                expected=f"at least one of {', '.join(_QUANTISED)} with constant weights",
                got="none",
                next_command="export the plain, unfused graph, or use --target cpu",
            )
        shutil.move(str(target), path)
    return QuantisedCounts(counts, before, path.stat().st_size)


def _quantise(model: onnx.ModelProto, target: Path) -> dict[str, int]:
    """Write ``target``; {fp32 operator: how many are int8 now}."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, str(target), per_channel=True, weight_type=QuantType.QInt8)
    return _counts(onnx.load(str(target)))


def _shrink_weights(model: onnx.ModelProto, target: Path) -> dict[str, int]:
    """Write ``target``; how many products have int8 weights now."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    shrunk: dict[str, str] = {}
    count = 0
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            name = node.input[1]
            if name not in shrunk:
                shrunk[name] = f"{name}_expanded"
                parts = _int8(numpy_helper.to_array(weights[name]))
                names = [f"{name}_{part}" for part in parts]
                graph.initializer.extend(
                    numpy_helper.from_array(array, full)
                    for full, array in zip(names, parts.values(), strict=True)
                )
                nodes.append(helper.make_node("DequantizeLinear", names, [shrunk[name]], axis=1))
            node.input[1] = shrunk[name]
            count += 1
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.save(model, str(target))
    return {"MatMul": count} if count else {}


def _int8(weights: np.ndarray) -> dict[str, np.ndarray]:
    """weights: float32 (in, out). As DequantizeLinear wants it: a scale per column, no offset."""
    largest = np.abs(weights).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {
        "int8": np.clip(np.rint(weights / scale), -127, 127).astype(np.int8),
        "scale": scale,
        "zero": np.zeros(scale.shape, np.int8),
    }


def _counts(model: onnx.ModelProto) -> dict[str, int]:
    found = Counter(node.op_type for node in model.graph.node)
    return {plain: found[name] for plain, name in _QUANTISED.items() if found[name]}
