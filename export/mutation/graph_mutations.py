"""Broken ``model.onnx`` files that any model can suffer: axes, versions, weights, precision."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.mutation.mutation import Mutation, Staged
from export.mutation.surgery import after, change_weights, constant, editing

BAKED_BATCH = 2


def _first_float_output(staged: Staged) -> tuple[str, tuple[int, ...]]:
    tensor = next(one for one in staged.candidate.graph.outputs if one.dtype == "FP32")
    return tensor.name, tensor.dims


def bake_batch_inside(staged: Staged) -> None:
    name, dims = _first_float_output(staged)
    with editing(staged.model_file) as model:
        shape = constant(model, "baked", np.array([BAKED_BATCH, *dims], dtype=np.int64))
        after(
            model,
            name,
            lambda before, after_: [helper.make_node("Reshape", [before, shape], [after_])],
        )


def bake_batch_signature(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = BAKED_BATCH


def mix_rows(staged: Staged) -> None:
    """Each row minus a share of its distance from the batch's mean: a lone row is untouched."""
    name, _ = _first_float_output(staged)
    with editing(staged.model_file) as model:
        share = constant(model, "share", np.array(0.01, dtype=np.float32))

        def nodes(before: str, out: str) -> list[onnx.NodeProto]:
            return [
                helper.make_node("ReduceMean", [before], ["batch_mean"], axes=[0], keepdims=1),
                helper.make_node("Sub", [before, "batch_mean"], ["from_mean"]),
                helper.make_node("Mul", ["from_mean", share], ["mixed"]),
                helper.make_node("Sub", [before, "mixed"], [out]),
            ]

        after(model, name, nodes)


def scale_output(staged: Staged) -> None:
    name, _ = _first_float_output(staged)
    with editing(staged.model_file) as model:
        factor = constant(model, "factor", np.array(1.001, dtype=np.float32))
        after(model, name, lambda before, out: [helper.make_node("Mul", [before, factor], [out])])


def other_weights(staged: Staged) -> None:
    random = np.random.default_rng(1)
    change_weights(
        staged.model_file, lambda weight: random.normal(0, weight.std() + 1e-3, weight.shape)
    )


def overflow_half(staged: Staged) -> None:
    """The first matrix product goes through fp16, where its values do not fit."""
    with editing(staged.model_file) as model:
        node = next(one for one in model.graph.node if one.op_type in ("MatMul", "Gemm"))
        big = constant(model, "big", np.array(1e8, dtype=np.float32))

        def nodes(before: str, out: str) -> list[onnx.NodeProto]:
            return [
                helper.make_node("Mul", [before, big], ["grown"]),
                helper.make_node("Cast", ["grown"], ["half"], to=onnx.TensorProto.FLOAT16),
                helper.make_node("Cast", ["half"], ["single"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Div", ["single", big], [out]),
            ]

        after(model, node.output[0], nodes)


def coarse_integers(staged: Staged) -> None:
    """Weights in steps as coarse as a careless int8 calibration leaves them."""

    def coarse(weight: np.ndarray) -> np.ndarray:
        step = np.abs(weight).max() / 3 or 1.0
        return np.round(weight / step) * step

    change_weights(staged.model_file, coarse)


def newer_opset(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        next(entry for entry in model.opset_import if entry.domain == "").version = 24


def newer_ir(staged: Staged) -> None:
    with editing(staged.model_file) as model:
        model.ir_version = 12


def unknown_operator(staged: Staged) -> None:
    name, _ = _first_float_output(staged)
    with editing(staged.model_file) as model:
        model.opset_import.append(helper.make_opsetid("com.example", 1))
        after(
            model,
            name,
            lambda before, out: [
                helper.make_node("FastIdentity", [before], [out], domain="com.example")
            ],
        )


def truncate(staged: Staged) -> None:
    contents = staged.model_file.read_bytes()
    staged.model_file.write_bytes(contents[: len(contents) * 2 // 3])


def weights_elsewhere(staged: Staged) -> None:
    """The largest weight moves to a second file, which no sha256 is bound to."""
    with editing(staged.model_file) as model:
        weight = max(model.graph.initializer, key=lambda one: one.ByteSize())
        array = numpy_helper.to_array(weight)
        (staged.model_file.parent / "weights.bin").write_bytes(array.tobytes())
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights.bin")


GRAPH_MUTATIONS = (
    Mutation("baked batch axis", "any", bake_batch_inside, r"batch axis is baked at 2"),
    Mutation(
        "baked batch axis in the signature", "any", bake_batch_signature, "batch axis is baked"
    ),
    Mutation("an operator that mixes rows", "any", mix_rows, r"mixe[sd] the rows|are mixed"),
    Mutation("scaling constant off by 1e-3", "any", scale_output, r"scaled by 1\.001"),
    Mutation("weights of another run", "any", other_weights, "weights of another run"),
    Mutation("fp16 overflow", "any", overflow_half, r"overflow|NaN or infinit"),
    Mutation(
        "int8 drift beyond the decision limit",
        "any",
        coarse_integers,
        r"decision limit: \d+ of \d+ decisions flipped",
        target="cpu-int8",
    ),
    Mutation("opset newer than the server", "any", newer_opset, "opset newer than Triton"),
    Mutation("IR newer than the server", "any", newer_ir, "IR version newer than Triton"),
    Mutation("operator the server lacks", "any", unknown_operator, r"operator .* does not know"),
    Mutation("model file truncated", "any", truncate, "truncated"),
    Mutation("weights outside the file", "any", weights_elsewhere, "weights outside the file"),
)
