"""Target ``cpu-int8``: int8 weights with a scale per channel, activations quantised as they come.

Activations get one scale for the whole tensor, so a row's answer depends on its neighbours in the
batch; how much is bounded by ``Tolerance.invariance`` of the graph's reduced tolerances.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from contract.errors import ExportError
from contract.manifest import Graph
from export.onnx_export import quiet
from export.probe import answers, constants, exposed, session, share_of_tolerance
from training.spec import Arrays

# fp32 operator → what it is once it computes with int8 weights. Gather only shrinks the file: its
# rows are expanded before use. A Gemm becomes a MatMul first.
_QUANTISED = {"MatMul": "MatMulInteger", "LSTM": "DynamicQuantizeLSTM", "Conv": "ConvInteger"}
_CANDIDATES = (*_QUANTISED, "Gemm")
_GEMM_SUFFIX = "_MatMul"
# Shares of the operators that are given back to fp32, noisiest first, until the answers are good.
_KEPT_SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
# Of the tolerance, on the calibration rows: other rows will be worse.
_LARGEST_SHARE = 0.7


@dataclass(frozen=True)
class QuantisedCounts:
    """How many of each fp32 operator now compute with int8 weights, which are given back to fp32
    (node → its own relative noise in int8), and what that saves."""

    operators: dict[str, int]
    size_before_bytes: int
    size_after_bytes: int
    kept_fp32: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        operators = ", ".join(f"{count} {name}" for name, count in self.operators.items())
        mib = 1 << 20
        text = (
            f"{operators} with int8 weights,"
            f" {self.size_before_bytes / mib:.1f} → {self.size_after_bytes / mib:.1f} MiB"
        )
        if self.kept_fp32:
            noise = min(self.kept_fp32.values())
            text += (
                f"; {len(self.kept_fp32)} kept in fp32, each with a noise of {noise:.1%} or more"
            )
        return text


def quantise_dynamic(
    path: Path, graph: Graph, calibration: Sequence[Arrays] = ()
) -> QuantisedCounts:
    """Rewrite a plain fp32 export (opset 17, not fused) in place.

    calibration: batches of the graph's inputs. With them, operators that int8 makes noisiest stay
    fp32 until the answers are within the graph's reduced tolerances; without, all are quantised.

    Raises:
        ExportError: not a file that can be quantised, nothing in it was, or none may be.
    """
    before = path.stat().st_size if path.is_file() else 0
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as scratch, quiet():
        target = Path(scratch) / path.name
        try:
            model = onnx.load(str(path))
            counts = _quantise(model, target, ())
            kept: dict[str, float] = {}
            if counts and calibration:
                kept = _give_back(model, target, graph, calibration)
                counts = _counts(onnx.load(str(target)))
        except ExportError:
            raise
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
                expected=f"at least one {', '.join(_CANDIDATES)} with constant weights",
                got="none",
                next_command="export the plain, unfused graph, or use --target cpu",
            )
        shutil.move(str(target), path)
    return QuantisedCounts(counts, before, path.stat().st_size, kept)


def _quantise(model: onnx.ModelProto, target: Path, kept: Sequence[str]) -> dict[str, int]:
    """Write ``target``; {fp32 operator: how many are int8 now}."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # the quantiser changes what it is given
    quantize_dynamic(
        copy,
        str(target),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[name for node in kept for name in (node, node + _GEMM_SUFFIX)],
    )
    return _counts(onnx.load(str(target)))


def _give_back(
    model: onnx.ModelProto, target: Path, graph: Graph, calibration: Sequence[Arrays]
) -> dict[str, float]:
    """Quantise with ever more of the noisiest operators left out; those, with their noise."""
    wanted = answers(session(model), calibration)
    noise = node_noise(model, target.with_suffix(".node.onnx"), calibration)
    noisiest = sorted(noise, key=lambda name: noise[name], reverse=True)
    found: list[float] = []
    for share in _KEPT_SHARES:
        kept = noisiest[: int(np.ceil(share * len(noisiest)))]
        if not _quantise(model, target, kept):
            break
        got = answers(session(onnx.load(str(target))), calibration)
        found.append(share_of_tolerance(graph, calibration, wanted, got))
        if found[-1] <= _LARGEST_SHARE:
            return {name: noise[name] for name in kept}
    raise ExportError(
        f"{graph.triton_name}: int8 moves the answers too far, whatever is kept in fp32",
        expected=f"at most {_LARGEST_SHARE:.0%} of the tolerance on the calibration rows",
        got=f"{min(found, default=np.inf):.0%} at best",
        next_command="use --target cpu or cpu-openvino",
    )


def node_noise(
    model: onnx.ModelProto, scratch: Path, calibration: Sequence[Arrays]
) -> dict[str, float]:
    """Per operator that would be quantised: rms error of its own int8 answer / rms of its answer.

    Each is quantised alone, as a graph of one node, and asked what it was asked in fp32.
    """
    weights = constants(model)
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in _CANDIDATES and len(node.input) > 1 and node.input[1] in weights
    ]
    read = {name for node in nodes for name in node.input if name and name not in weights}
    seen = [exposed(model, read, rows) for rows in calibration]
    noise: dict[str, float] = {}
    for node in nodes:
        feeds = [{name: rows[name] for name in node.input if name in rows} for rows in seen]
        alone = _alone(model, node, weights, feeds[0])
        plain = session(alone)
        if not _quantise(alone, scratch, ()):
            continue
        reduced = session(onnx.load(str(scratch)))
        noise[node.name] = max(_relative_error(plain, reduced, feed) for feed in feeds)
    return noise


def _relative_error(plain: object, reduced: object, feed: Arrays) -> float:
    wanted, got = answers(plain, [feed])[0], answers(reduced, [feed])[0]
    name = next(iter(wanted))
    power = float(np.mean(np.square(wanted[name], dtype=np.float64)))
    error = float(np.mean(np.square(np.subtract(got[name], wanted[name], dtype=np.float64))))
    return float(np.sqrt(error / power)) if power > 0 else 0.0


def _alone(
    model: onnx.ModelProto, node: onnx.NodeProto, weights: dict[str, TensorProto], feed: Arrays
) -> onnx.ModelProto:
    """A model of one node: its first output from its inputs that are no weights."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in feed.items()
    ]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    held = [weights[name] for name in dict.fromkeys(node.input) if name in weights]
    body = helper.make_graph([node], "alone", inputs, [output], held)
    return helper.make_model(
        body, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def _counts(model: onnx.ModelProto) -> dict[str, int]:
    found = Counter(node.op_type for node in model.graph.node)
    return {plain: found[name] for plain, name in _QUANTISED.items() if found[name]}
