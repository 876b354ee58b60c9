"""Tiny models for the embedded server's tests, made with onnx alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper

from embedded_triton import ServerSettings

CONFIG = """backend: "onnxruntime"
max_batch_size: 8
input [{name: "x" data_type: TYPE_FP32 dims: [4]}]
output [{name: "y" data_type: TYPE_FP32 dims: [4]}]
dynamic_batching {}
instance_group [{count: 2}]
version_policy { latest { num_versions: 2 } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


def write_multiply(path: Path, factor: float) -> None:
    """y = factor · x, float32 (batch, 4)."""
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    _save(path, node, "k", [factor], Type.FLOAT, [1], Type.FLOAT)


def write_gather(path: Path) -> None:
    """y = table[x]: an index beyond the table's four rows fails at run time."""
    node = helper.make_node("Gather", ["k", "x"], ["y"])
    _save(path, node, "k", [10.0, 11.0, 12.0, 13.0], Type.FLOAT, [4], Type.INT64)


def _save(
    path: Path,
    node: onnx.NodeProto,
    name: str,
    values: list[float],
    kind: int,
    shape: list[int],
    input_kind: int,
) -> None:
    graph = helper.make_graph(
        [node],
        "tiny",
        [helper.make_tensor_value_info("x", input_kind, ["batch", 4])],
        [helper.make_tensor_value_info("y", Type.FLOAT, ["batch", 4])],
        [helper.make_tensor(name, kind, shape, values)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def make_repository(root: Path) -> Path:
    """double (versions 1, 2), auto (no tensors in its config), lookup (fails on a bad index)."""
    write_multiply(root / "double/1/model.onnx", 2.0)
    write_multiply(root / "double/2/model.onnx", 20.0)
    (root / "double/config.pbtxt").write_text(CONFIG)
    write_multiply(root / "auto/1/model.onnx", 3.0)
    (root / "auto/config.pbtxt").write_text('backend: "onnxruntime"\n')
    write_gather(root / "lookup/1/model.onnx")
    (root / "lookup/config.pbtxt").write_text(
        CONFIG.replace(
            "data_type: TYPE_FP32 dims: [4]}]\noutput", "data_type: TYPE_INT64 dims: [4]}]\noutput"
        )
    )
    return root


@pytest.fixture(scope="session")
def venv(repository_root: Path) -> Path:
    return repository_root / ".venv-triton"


def settings_for(repository: Path, run_folder: Path, venv: Path) -> ServerSettings:
    return ServerSettings(
        repository, http_port=0, grpc_port=0, metrics_port=0, venv=venv, run_folder=run_folder
    )


def embedded_triton(
    root: Path, run_folder: Path, venv: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """``python -m embedded_triton …`` to its end."""
    command = [sys.executable, "-m", "embedded_triton", f"--run-folder={run_folder}"]
    return subprocess.run(
        [*command, f"--venv={venv}", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
