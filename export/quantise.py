"""Target ``cpu-int8``: int8 weights with a scale per channel, activations quantised as they come.

Activations get one scale for the whole tensor, so a row's answer depends on its neighbours in the
batch; how much is bounded by ``Tolerance.invariance`` of the graph's reduced tolerances.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

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
    before = path.stat().st_size if path.is_file() else 0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as scratch, quiet():
        target = Path(scratch) / path.name
        try:
            counts = _quantise(onnx.load(str(path)), target)
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


def _counts(model: onnx.ModelProto) -> dict[str, int]:
    found = Counter(node.op_type for node in model.graph.node)
    return {plain: found[name] for plain, name in _QUANTISED.items() if found[name]}
