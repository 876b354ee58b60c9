"""The rungs of the parity ladder: the same rows through eager PyTorch, the files, the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from tritonclient.grpc import model_config_pb2

from contract.errors import ExportError
from contract.manifest import Graph
from export.config_pbtxt import number_of
from export.onnx_export import as_tensors, quiet
from export.torchscript_export import load_torchscript
from training.spec import Arrays

_CUDA = "CUDAExecutionProvider"
_ENABLE_ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
# As Triton's onnxruntime backend reads ``optimization.graph.level``.
_LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_NUMPY_TYPES = {
    "FP32": np.float32,
    "FP16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "BOOL": np.bool_,
}


class Rung(Protocol):
    """``run`` maps {input name: array (batch, …)} to {output name: array (batch, …)}."""

    name: str
    # Provider, optimisation level, precision, threads: how the answers came about.
    served_by: str

    def run(self, inputs: Arrays) -> Arrays: ...


class EagerRung:
    """The reference: the network as PyTorch runs it, fp32."""

    name = "eager"
    served_by = "PyTorch fp32"

    def __init__(self, network: torch.nn.Module, graph: Graph) -> None:
        self.network = network.eval()
        self._graph = graph

    def run(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = self.network(*as_tensors(self._graph, inputs))
        return _named(self._graph, outputs)


class OnnxRung:
    """ONNX Runtime with the session options of the config.pbtxt (its protobuf message) it will be
    served with."""

    name = "onnxruntime"

    def __init__(self, path: Path, graph: Graph, config: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = number_of(config, "intra_op_thread_count")
        options.inter_op_num_threads = number_of(config, "inter_op_thread_count")
        level = config.optimization.graph.level
        options.graph_optimization_level = _LEVELS.get(level, _ENABLE_ALL)
        # A broken export answers in its report, not in a hundred lines of the runtime.
        options.log_severity_level = 4
        wanted = _providers(config)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise ExportError(
                f"{graph.triton_name}: ONNX Runtime cannot load the export",
                where=str(path),
                got=_first_line(error),
            ) from error
        got = self.session.get_providers()
        if got[0] != wanted[0]:
            # ONNX Runtime falls back without a word when a provider's libraries are missing.
            raise ExportError(
                f"{graph.triton_name}: ONNX Runtime fell back to another provider",
                where=str(path),
                expected=wanted[0],
                got=got[0],
                next_command="install the libraries of onnxruntime-gpu (make gpu), or prove with"
                " --target cpu",
            )
        self.served_by = (
            f"{got[0]}, {options.graph_optimization_level.name},"
            f" {options.intra_op_num_threads} thread"
        )
        if _on_gpu(config) and wanted[0] != _CUDA:
            self.served_by += "; no GPU here: fp16 emulated, prove again there: verify --url"
        self._names = [tensor.name for tensor in graph.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        outputs = self.session.run(self._names, inputs)
        return dict(zip(self._names, map(np.asarray, outputs), strict=True))


class TorchScriptRung:
    """The saved TorchScript file, loaded anew."""

    name = "torchscript"
    served_by = "libtorch, 1 thread"

    def __init__(self, path: Path, graph: Graph) -> None:
        try:
            self._module = load_torchscript(path)
        except Exception as error:  # torch.jit raises RuntimeError and others
            raise ExportError(
                f"{graph.triton_name}: TorchScript cannot load the export",
                where=str(path),
                got=_first_line(error),
            ) from error
        self._graph = graph

    def run(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode(), quiet():
            outputs = self._module(*as_tensors(self._graph, inputs))
        return _named(self._graph, outputs)


def expected_type(dtype: str) -> np.dtype[np.generic]:
    """numpy type of a tensor that is not BYTES."""
    return np.dtype(_NUMPY_TYPES[dtype])


def _named(graph: Graph, outputs: tuple[torch.Tensor, ...]) -> Arrays:
    if not isinstance(outputs, tuple) or len(outputs) != len(graph.outputs):
        raise ExportError(
            f"{graph.triton_name}: the network returns something else than its graph",
            expected=f"a tuple of {len(graph.outputs)}",
            got=type(outputs).__name__,
        )
    return {
        tensor.name: output.numpy() for tensor, output in zip(graph.outputs, outputs, strict=True)
    }


def _on_gpu(config: Any) -> bool:
    return any(
        group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        for group in config.instance_group
    )


def _providers(config: Any) -> list[str]:
    """The provider first that this config makes the server use."""
    if _on_gpu(config) and _CUDA in onnxruntime.get_available_providers():
        return [_CUDA, "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
