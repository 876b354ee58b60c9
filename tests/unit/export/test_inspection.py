"""What is wrong with an ONNX file is said before anybody asks it a question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.errors import ExportError
from contract.manifest import Graph, Tensor, Tolerance
from export.container import LIMITS
from export.inspection import fusion_faults, onnx_faults, require_onnx

LIMIT = LIMITS["24.10"]
GRAPH = Graph(
    triton_name="double",
    inputs=(Tensor(name="x", dtype="FP32", dims=(-1,)),),
    outputs=(Tensor(name="y", dtype="FP32", dims=(-1,)),),
    max_batch_size=8,
    max_length=16,
    tolerances={"y": Tolerance(maximum=1e-4, percentile_99_9=1e-4)},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    axes = ["batch", "sequence"]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            "double",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def _edit(path: Path, change: Callable[[onnx.ModelProto], object]) -> list[str]:
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    return [str(fault) for fault in onnx_faults(path, GRAPH, LIMIT)]


def test_a_sound_file_has_no_fault(path: Path) -> None:
    assert list(onnx_faults(path, GRAPH, LIMIT)) == []
    require_onnx(path, GRAPH, LIMIT)


def test_every_fault_is_listed_not_only_the_first(path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.ir_version = 12
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    faults = _edit(path, change)
    assert any("IR version newer than Triton 24.10" in fault for fault in faults)
    assert any("input 'x' is not as declared: the batch axis is baked at 4" in f for f in faults)
    assert any("output 'y' is not as declared" in fault and "FLOAT16" in fault for fault in faults)
    with pytest.raises(ExportError, match="IR version"):
        require_onnx(path, GRAPH, LIMIT)


def test_a_baked_length_is_told_from_a_baked_batch(path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7

    assert "the length axis is baked at 7" in _edit(path, change)[0]


def test_operators_are_held_against_the_containers_runtime(path: Path) -> None:
    def contrib(name: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            del model.opset_import[1:]
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
            del model.graph.node[1:]
            model.graph.node[0].output[0] = "before"
            model.graph.node.append(
                helper.make_node(name, ["before"], ["y"], domain="com.microsoft")
            )

        return change

    # In ONNX Runtime since 1.20: the container has 1.19.
    (fault,) = _edit(path, contrib("SomethingOf2026"))
    assert "ONNX Runtime 1.19.2) does not know" in fault
    assert "1 com.microsoft.SomethingOf2026" in fault
    assert _edit(path, contrib("Gelu")) == []


def test_an_operator_of_a_later_opset_is_named(path: Path) -> None:
    """Gelu joined the standard operators in opset 20."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Gelu"
        del model.graph.node[0].input[1:]

    assert "1 ai.onnx.Gelu" in _edit(path, change)[0]


def test_an_input_that_nothing_reads(path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
        model.graph.initializer.append(one)
        model.graph.node[0].input[:] = ["one", "one"]

    assert any("input 'x' is dropped: no operator reads it" in one for one in _edit(path, change))


def test_a_file_that_is_not_onnx(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])
    (fault,) = onnx_faults(path, GRAPH, LIMIT)
    assert "truncated" in str(fault)
    path.unlink()
    (fault,) = onnx_faults(path, GRAPH, LIMIT)
    assert "no model file" in str(fault)


def test_lost_fusions_are_counted(path: Path) -> None:
    (fault,) = fusion_faults(onnx.load(str(path)), GRAPH, 6, str(path))
    assert "fusions lost" in str(fault)
    assert "expected 6 Attention, 12 SkipLayerNormalization, 6 BiasGelu" in str(fault)
