"""Is ``model.onnx`` what its graph declares, and can the container run it? Asks no question of it.

Every check is one that exporters pass in silence: an axis baked at the traced size, an input that
nothing reads, an operator or opset newer than the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from contract.errors import ExportError
from contract.manifest import Graph, Tensor
from export.container import ContainerLimits

# protobuf cannot hold more; beyond it the weights would need a second file.
LARGEST_FILE_BYTES = 2**31 - 1
CONTRIB_DOMAIN = "com.microsoft"
# Fused operator → how many of it one encoder layer must become. The embedding stays as it is: its
# fusion wants token_type_ids as an input, which these classifiers do not take.
FUSED_PER_LAYER = {"Attention": 1, "SkipLayerNormalization": 2, "BiasGelu": 1}
_ONNX_TYPES = {
    "FP32": onnx.TensorProto.FLOAT,
    "FP16": onnx.TensorProto.FLOAT16,
    "INT64": onnx.TensorProto.INT64,
    "INT32": onnx.TensorProto.INT32,
    "BOOL": onnx.TensorProto.BOOL,
}


def require_onnx(path: Path, graph: Graph, limits: ContainerLimits, *, layers: int = 0) -> None:
    """Raise the first fault. ``layers``: encoder layers that must be fused, 0 for none.

    Raises:
        ExportError: the file is not valid, not as declared, or not for this container.
    """
    for fault in onnx_faults(path, graph, limits, layers=layers):
        raise fault


def onnx_faults(
    path: Path, graph: Graph, limits: ContainerLimits, *, layers: int = 0
) -> Iterator[ExportError]:
    """Every fault of the file, the most basic first; one that cannot be read has only that."""
    where, name = str(path), graph.triton_name
    if not path.is_file():
        yield ExportError(f"{name}: no model file", where=where)
        return
    if path.stat().st_size > LARGEST_FILE_BYTES:
        yield ExportError(
            f"{name}: ONNX file too large",
            where=where,
            expected="at most 2 GiB, weights included",
            got=f"{path.stat().st_size:,} bytes",
        )
        return
    try:
        model = onnx.load(where, load_external_data=False)
    except Exception as error:  # protobuf raises its own
        yield ExportError(
            f"{name}: not a valid ONNX file (truncated, or something else)",
            where=where,
            got=f"{path.stat().st_size:,} bytes, {_first_line(error)}",
            next_command="export again",
        )
        return
    versions = list(_version_faults(model, graph, limits, where))
    yield from versions
    if any(weight.external_data for weight in model.graph.initializer):
        yield ExportError(
            f"{name}: weights outside the file",
            where=where,
            expected="one file: publishing binds one sha256",
        )
    if not versions:
        # The checker knows no opset beyond its own, and would say so in its own words.
        try:
            onnx.checker.check_model(where)
        except Exception as error:  # checker and protobuf each raise their own
            yield ExportError(f"{name}: not a valid ONNX file", where=where, got=_first_line(error))
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    yield from _tensor_faults(graph, "input", graph.inputs, inputs, where)
    yield from _tensor_faults(graph, "output", graph.outputs, list(model.graph.output), where)
    yield from _unused_inputs(model, graph, where)
    if layers:
        yield from fusion_faults(model, graph, layers, where)


def fusion_faults(
    model: onnx.ModelProto, graph: Graph, layers: int, where: str
) -> Iterator[ExportError]:
    """An exporter that writes the graph otherwise loses fusions without a word."""
    nodes = Counter(node.op_type for node in model.graph.node)
    wanted = {name: count * layers for name, count in FUSED_PER_LAYER.items()}
    if any(nodes[name] != count for name, count in wanted.items()):
        yield ExportError(
            f"{graph.triton_name}: fusions lost",
            where=where,
            expected=", ".join(f"{count} {name}" for name, count in wanted.items()),
            got=", ".join(f"{nodes[name]} {name}" for name in wanted),
            next_command="use requirements/export.txt's versions, or --target cpu",
        )


def _version_faults(
    model: onnx.ModelProto, graph: Graph, limits: ContainerLimits, where: str
) -> Iterator[ExportError]:
    server = f"Triton {limits.tag} (ONNX Runtime {limits.onnxruntime_version})"
    domains = {entry.domain: entry.version for entry in model.opset_import}
    opset = domains.get("", domains.get("ai.onnx", 0))
    for kind, got, allowed in (
        ("IR version", model.ir_version, limits.ir_version),
        ("opset", opset, limits.opset),
    ):
        if got > allowed:
            yield ExportError(
                f"{graph.triton_name}: {kind} newer than {server} knows",
                where=where,
                expected=f"at most {allowed}",
                got=str(got),
            )
    unknown: Counter[str] = Counter()
    for node in graph_nodes(model.graph):
        if node.domain in ("", "ai.onnx"):
            known = onnx.defs.has(node.op_type, min(opset, onnx.defs.onnx_opset_version()), "")
        else:
            known = node.domain == CONTRIB_DOMAIN and node.op_type in limits.contrib_operators
        if not known:
            unknown[f"{node.domain or 'ai.onnx'}.{node.op_type}"] += 1
    if unknown:
        yield ExportError(
            f"{graph.triton_name}: an operator that {server} does not know",
            where=where,
            got=", ".join(f"{count} {name}" for name, count in unknown.items()),
            next_command="add it to export/container.py once that server has run it",
        )


def graph_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of If and Loop bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graph_nodes(attribute.g)
            for body in attribute.graphs:
                yield from graph_nodes(body)


def _unused_inputs(model: onnx.ModelProto, graph: Graph, where: str) -> Iterator[ExportError]:
    used = {name for node in graph_nodes(model.graph) for name in node.input}
    given = {value.name for value in model.graph.input}
    for tensor in graph.inputs:
        if tensor.name in given and tensor.name not in used:
            yield ExportError(
                f"{graph.triton_name}: input {tensor.name!r} is dropped: no operator reads it",
                where=where,
                expected=f"answers that depend on {tensor.name}",
            )


def _tensor_faults(
    graph: Graph, kind: str, expected: tuple[Tensor, ...], got: list[Any], where: str
) -> Iterator[ExportError]:
    names = [value.name for value in got]
    if sorted(names) != sorted(tensor.name for tensor in expected):
        dropped = [tensor.name for tensor in expected if tensor.name not in names]
        what = f"{kind} {dropped[0]!r} is dropped" if dropped else f"other {kind}s than declared"
        yield ExportError(
            f"{graph.triton_name}: {what}",
            where=where,
            expected=", ".join(tensor.name for tensor in expected),
            got=", ".join(names),
        )
        return
    for tensor in expected:
        value = got[names.index(tensor.name)]
        kind_of = value.type.tensor_type
        dims = [
            dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1
            for dim in kind_of.shape.dim
        ]
        declared = [-1, *tensor.dims]
        # An axis the exporter could not infer is checked by running it (parity).
        fits = len(dims) == len(declared) and all(
            size == -1 if want == -1 else size in (want, -1)
            for size, want in zip(dims, declared, strict=True)
        )
        if kind_of.elem_type == _ONNX_TYPES[tensor.dtype] and fits:
            continue
        what = f"{kind} {tensor.name!r} is not as declared"
        baked = [
            ("batch" if axis == 0 else "length", size)
            for axis, (size, want) in enumerate(zip(dims, declared, strict=False))
            if want == -1 and size != -1
        ]
        if baked:
            what += f": the {baked[0][0]} axis is baked at {baked[0][1]}"
        type_name = onnx.TensorProto.DataType.Name(kind_of.elem_type)
        yield ExportError(
            f"{graph.triton_name}: {what}",
            where=where,
            expected=f"{tensor.dtype} {declared} (-1 = dynamic)",
            got=f"{type_name} {dims}",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
