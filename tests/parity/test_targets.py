"""Reduced targets: what each conversion does to a graph, and that the gate judges the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.errors import ExportError
from contract.manifest import Graph, Tensor, Tolerance
from export.candidate import Candidate
from export.compare import compare_targets
from export.config_pbtxt import GROUP_KEY, graph_config, parse_config
from export.gate import export_files, prove
from export.half import convert_half
from export.judge import Ascent
from export.openvino_rung import OpenVinoRung
from export.quantise import quantise_dynamic, quantise_weights
from export.target import TARGETS
from training.registry import get_spec

GRAPH = Graph(
    triton_name="products",
    inputs=(Tensor(name="values", dtype="FP32", dims=(4,)),),
    outputs=(Tensor(name="answer", dtype="FP32", dims=(4,)),),
    max_batch_size=8,
    max_length=4,
    parity_batches=(1,),
    parity_lengths=(4,),
    tolerances={"answer": Tolerance(maximum=1e-3, percentile_99_9=1e-3)},
)
BATCH = {"values": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}


def products(path: Path, *, scale: float = 1.0) -> Path:
    """values · W₁ · scale · W₂ / scale: a large ``scale`` overflows fp16 in the middle."""
    random = np.random.default_rng(0)
    weights = {
        "first": random.normal(size=(4, 4)).astype(np.float32),
        "second": random.normal(size=(4, 4)).astype(np.float32),
        "up": np.float32(scale),
        "down": np.float32(1 / scale),
    }
    nodes = [
        helper.make_node("MatMul", ["values", "first"], ["a"]),
        helper.make_node("Mul", ["a", "up"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Mul", ["c", "down"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, BATCH)[0])


def half_weights(path: Path) -> set[str]:
    weights = onnx.load(str(path)).graph.initializer
    return {weight.name for weight in weights if weight.data_type == TensorProto.FLOAT16}


@pytest.mark.parametrize("matrices_only", [False, True])
def test_fp16_keeps_fp32_where_a_value_would_overflow(tmp_path: Path, matrices_only: bool) -> None:
    path = products(tmp_path / "model.onnx", scale=1e6)
    expected = answer(path)
    kept = convert_half(path, GRAPH, [BATCH], matrices_only=matrices_only)
    assert any(one.op_type == "MatMul" and "> 65504" in one.reason for one in kept)
    found = answer(path)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert 0 < np.abs(found - expected).max() < 5e-3


def test_only_calibration_shows_what_would_overflow(tmp_path: Path) -> None:
    """No assertion on answers: a CPU without fp16 kernels computes between the casts in fp32."""
    tiny = {"values": BATCH["values"] * 1e-9}
    path = products(tmp_path / "model.onnx", scale=5e4)
    assert convert_half(path, GRAPH, [tiny], matrices_only=False) == []
    kept = convert_half(products(path, scale=5e4), GRAPH, [tiny, BATCH], matrices_only=False)
    assert [one.op_type for one in kept] == ["Mul", "MatMul", "Mul"]


def test_matrices_only_leaves_the_inputs_exact(tmp_path: Path) -> None:
    path = products(tmp_path / "model.onnx")
    assert convert_half(path, GRAPH, [BATCH], matrices_only=True) == []
    assert half_weights(path) == {"first__fp16", "second__fp16"}
    casts = {node.input[0] for node in onnx.load(str(path)).graph.node if node.op_type == "Cast"}
    assert casts == {"values", "a__fp16", "b", "c__fp16"}


def test_int8_says_what_it_made_and_refuses_a_graph_without_products(tmp_path: Path) -> None:
    path = products(tmp_path / "model.onnx")
    expected = answer(path)
    counts = quantise_dynamic(path, GRAPH)
    assert counts.operators == {"MatMul": 2}
    assert 0 < np.abs(answer(path) - expected).max() < 0.2
    with pytest.raises(ExportError, match="cannot be quantised"):
        quantise_dynamic(tmp_path / "absent.onnx", GRAPH)
    model = onnx.load(str(products(path)))
    model.graph.node[0].op_type = model.graph.node[2].op_type = "Add"
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="nothing was quantised"):
        quantise_dynamic(path, GRAPH)


def test_int8_weights_are_expanded_before_each_product(tmp_path: Path) -> None:
    """The same file elsewhere: only the weights' rounding is left, half a step at most."""
    path = products(tmp_path / "model.onnx")
    expected = answer(path)
    plain = path.read_bytes()
    counts = quantise_weights(path, GRAPH)
    assert counts.operators == {"MatMul": 2}
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(str(path)).graph.initializer}
    assert kinds["first_int8"] == kinds["second_int8"] == TensorProto.INT8
    assert not {"first", "second"} & kinds.keys()
    assert 0 < np.abs(answer(path) - expected).max() < 0.05
    path.write_bytes(plain)
    model = onnx.load(str(path))
    model.graph.node[0].op_type = model.graph.node[2].op_type = "Add"
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="nothing was quantised"):
        quantise_weights(path, GRAPH)


def test_openvino_quantises_activations_as_the_config_says(tmp_path: Path) -> None:
    """A row alone answers as among others: each token has its own scales."""
    width = 384
    weights = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32)
    rows = np.random.default_rng(1).normal(size=(8, width)).astype(np.float32)
    rows[0] *= 1000.0
    graph = GRAPH.model_copy(
        update={
            "inputs": (Tensor(name="values", dtype="FP32", dims=(width,)),),
            "outputs": (Tensor(name="answer", dtype="FP32", dims=(width,)),),
        }
    )
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["values", "w"], ["answer"])],
            "product",
            [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", width])],
            [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", width])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    quantise_weights(tmp_path / "model.onnx", graph)
    rungs = {}
    for target in ("cpu-openvino", "cpu-openvino-int8"):
        config = parse_config(graph_config(graph, (), target=TARGETS[target]).config)
        rungs[target] = OpenVinoRung(tmp_path / "model.onnx", graph, config)
    assert "groups of 384" in rungs["cpu-openvino-int8"].served_by
    answers = {name: rung.run({"values": rows})["answer"] for name, rung in rungs.items()}
    exact = rows @ weights
    scale = np.abs(exact).max(axis=1, keepdims=True)
    for found in answers.values():
        assert (np.abs(found - exact) / scale).max() < 0.03
    alone = rungs["cpu-openvino-int8"].run({"values": rows[1:2]})["answer"]
    assert np.abs(alone - answers["cpu-openvino-int8"][1:2]).max() == 0
    if "avx512_vnni" in Path("/proc/cpuinfo").read_text():
        assert not np.array_equal(*answers.values()), "the group size changed nothing"


@pytest.mark.parametrize("target", TARGETS)
def test_only_openvino_in_int8_has_a_group_size(target: str) -> None:
    config = parse_config(graph_config(GRAPH, (), target=TARGETS[target]).config)
    assert (GROUP_KEY in config.parameters) == (target == "cpu-openvino-int8")


def exported(candidate: Candidate, target: str) -> Ascent:
    return export_files(dataclasses.replace(candidate, target=TARGETS[target]))


def test_gpu_fuses_a_classifier_and_passes_offline(toy_model: ModuleType, tmp_path: Path) -> None:
    candidate = Candidate(get_spec("log_anomaly"), toy_model.make_tiny_log_anomaly(tmp_path))
    ascent = exported(candidate, "gpu")
    path = ascent.candidate.file("onnx")
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert {"Attention", "SkipLayerNormalization"} <= operators
    assert half_weights(path)
    assert not ascent.candidate.file("torchscript").exists()
    (report,) = prove([ascent], wire=False, progress=False)
    assert [rung.rung for rung in report.rungs] == ["onnxruntime"]
    assert report.rungs[0].passed, report.complaint()


def test_int8_drift_is_refused_or_within_its_limits(toy_model: ModuleType, tmp_path: Path) -> None:
    """Whatever the rounding does to this one, the verdict follows from the figures."""
    candidate = Candidate(get_spec("log_anomaly"), toy_model.make_tiny_log_anomaly(tmp_path))
    (report,) = prove([exported(candidate, "cpu-int8")], wire=False, progress=False)
    (rung,) = report.rungs
    within = (
        rung.flipped <= 0.001 * rung.decisions
        and rung.widest_flip_margin <= 0.05
        and all(tensor.passed for tensor in rung.tensors)
    )
    assert rung.passed == (within and rung.complaint() is None)
    assert any("int8 weights" in note for note in report.notes)


def test_compare_times_every_target_in_one_run(toy_model: ModuleType, tmp_path: Path) -> None:
    candidate = Candidate(get_spec("log_anomaly"), toy_model.make_tiny_log_anomaly(tmp_path))
    table = compare_targets(candidate, rounds=1, progress=False)
    rows = {line.split("  ")[0].strip(): line for line in table.splitlines()[2:]}
    assert {"eager PyTorch", "cpu", "cpu (TorchScript)"} <= rows.keys()
    for target in TARGETS:
        assert any(name.startswith(target) for name in rows), table
    assert rows["cpu"].endswith("passes")
    assert "100.000%" in rows["cpu"]
    assert rows["eager PyTorch"].count(" ms") == 2
