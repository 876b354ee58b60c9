"""The rungs of the parity ladder: the same rows through eager PyTorch, the files, the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
import tritonclient.grpc as triton

from contract.errors import ExportError, ServerError
from contract.manifest import Graph
from export.config_pbtxt import THREADS_PER_INSTANCE
from export.onnx_export import as_tensors, quiet
from export.torchscript_export import load_torchscript
from training.spec import Arrays

REQUEST_TIMEOUT_SECONDS = 120
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

    def run(self, inputs: Arrays) -> Arrays: ...


class EagerRung:
    """The reference: the network as PyTorch runs it, fp32."""

    name = "eager"

    def __init__(self, network: torch.nn.Module, graph: Graph) -> None:
        self.network = network.eval()
        self._graph = graph

    def run(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = self.network(*as_tensors(self._graph, inputs))
        return _named(self._graph, outputs)


class OnnxRung:
    """ONNX Runtime with the session options of the deployed config.pbtxt."""

    name = "onnxruntime"

    def __init__(self, path: Path, graph: Graph) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS_PER_INSTANCE
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise ExportError(
                f"{graph.triton_name}: ONNX Runtime cannot load the export",
                where=str(path),
                got=_first_line(error),
            ) from error
        self._names = [tensor.name for tensor in graph.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        outputs = self._session.run(self._names, inputs)
        return dict(zip(self._names, map(np.asarray, outputs), strict=True))


class TorchScriptRung:
    """The saved TorchScript file, loaded anew."""

    name = "torchscript"

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


class WireRung:
    """The file as the server answers from it over gRPC."""

    name = "wire"

    def __init__(self, url: str, triton_name: str, graph: Graph, *, positional: bool) -> None:
        """positional: outputs are called ``<name>__<index>``, as the pytorch backend wants."""
        self.client = triton.InferenceServerClient(url)
        self._model = triton_name
        self._graph = graph
        self._output_names = {
            tensor.name: f"{tensor.name}__{index}" if positional else tensor.name
            for index, tensor in enumerate(graph.outputs)
        }

    def run(self, inputs: Arrays) -> Arrays:
        return infer(
            self.client,
            self._model,
            {tensor.name: inputs[tensor.name] for tensor in self._graph.inputs},
            {tensor.name: tensor.dtype for tensor in self._graph.inputs},
            self._output_names,
        )

    def close(self) -> None:
        self.client.close()


def infer(
    client: triton.InferenceServerClient,
    model: str,
    inputs: Arrays,
    types: Mapping[str, str],
    output_names: dict[str, str],
) -> Arrays:
    """One request; ``output_names`` maps our names to the server's. Raises ServerError."""
    sent = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, types[name])
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        sent.append(tensor)
    wanted = [triton.InferRequestedOutput(name) for name in output_names.values()]
    try:
        answer = client.infer(model, sent, outputs=wanted, client_timeout=REQUEST_TIMEOUT_SECONDS)
    except triton.InferenceServerException as error:
        raise ServerError(
            f"{model}: the server refused a golden request", got=str(error)
        ) from error
    return {ours: answer.as_numpy(theirs) for ours, theirs in output_names.items()}


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
