"""Stand-in for Triton's native ``onnxruntime`` backend: the same config.pbtxt.

On the CPU; on a GPU where an instance asks for one and the server's environment has CUDA.

Runs inside Triton's Python stub (numpy < 2). Honours ``default_model_filename``, the thread,
execution-mode and graph-level options, missing inputs and outputs (auto-complete), and batches the
requests of one call like the native backend does. See the README of onnxruntime_backend for the
options' meaning.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_CUDA = "CUDAExecutionProvider"
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_TRITON_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int8)": "TYPE_INT8",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
}


def _model_file(repository, version, config):
    name = config.get("default_model_filename") or "model.onnx"
    return Path(repository) / str(version) / name


def _option(config, key, default):
    value = config.get("parameters", {}).get(key, {}).get("string_value", "")
    return int(value) if value else default


def _providers(args):
    """CUDA first where an instance asks for a GPU: never instead of it the CPU, without a word."""
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    if _CUDA not in ort.get_available_providers():
        raise pb_utils.TritonModelException(
            "instance kind GPU asked for, but this server's ONNX Runtime has no CUDA: use the"
            " container, or install onnxruntime-gpu in its environment"
        )
    return [(_CUDA, {"device_id": int(args["model_instance_device_id"])}), "CPUExecutionProvider"]


def _session(path, config, providers=("CPUExecutionProvider",)):
    if not path.is_file():
        raise pb_utils.TritonModelException(f"no model file {path}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = _option(config, "intra_op_thread_count", 0)
    options.inter_op_num_threads = _option(config, "inter_op_thread_count", 0)
    if _option(config, "execution_mode", 0) == 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0) or 0)
    options.graph_optimization_level = _LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    if _option(config, "enable_mem_arena", 1) == 0:
        options.enable_cpu_mem_arena = False
    if _option(config, "enable_mem_pattern", 1) == 0:
        options.enable_mem_pattern = False
    try:
        session = ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime raises classes of its own binding
        raise pb_utils.TritonModelException(f"{path}: {error}") from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != wanted:
        raise pb_utils.TritonModelException(
            f"{path}: ONNX Runtime fell back to {session.get_providers()[0]} from {wanted}"
        )
    return session


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Fill in what config.pbtxt leaves out, from the model file."""
        config = auto_complete_model_config.as_dict()
        if config.get("input") and config.get("output"):
            return auto_complete_model_config
        version = Path(pb_utils.get_model_dir())
        session = _session(_model_file(version.parent, version.name, config), config)
        batched = all(
            tensor.shape and not isinstance(tensor.shape[0], int)
            for tensor in [*session.get_inputs(), *session.get_outputs()]
        )
        if batched and not config.get("max_batch_size"):
            auto_complete_model_config.set_max_batch_size(4)
        for tensors, add in (
            (session.get_inputs(), auto_complete_model_config.add_input),
            (session.get_outputs(), auto_complete_model_config.add_output),
        ):
            for tensor in tensors:
                dims = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
                add(
                    {
                        "name": tensor.name,
                        "data_type": _TRITON_TYPES[tensor.type],
                        "dims": dims[1:] if batched else dims,
                    }
                )
        return auto_complete_model_config

    def initialize(self, args):
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} makes this server answer wrong data; install numpy<2"
            )
        config = json.loads(args["model_config"])
        path = _model_file(args["model_repository"], args["model_version"], config)
        self.session = _session(path, config, _providers(args))
        self.batched = int(config.get("max_batch_size", 0)) > 0
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor.name for tensor in self.session.get_outputs()]
        named = {tensor["name"] for tensor in config["input"]}
        if named != set(self.inputs):
            raise pb_utils.TritonModelException(
                f"{path}: has inputs {sorted(self.inputs)}, config.pbtxt names {sorted(named)}"
            )
        self.wanted = [tensor["name"] for tensor in config["output"]]
        unknown = sorted(set(self.wanted) - set(self.outputs))
        if unknown:
            raise pb_utils.TritonModelException(
                f"{path}: no output {unknown[0]!r}, it has {sorted(self.outputs)}"
            )

    def execute(self, requests):
        rows = [self._arrays(request) for request in requests]
        responses = [None] * len(requests)
        for group in self._groups(rows):
            self._answer(group, requests, rows, responses)
        return responses

    def _arrays(self, request):
        arrays = []
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            array = tensor.as_numpy()
            arrays.append(array.astype(str) if array.dtype == np.object_ else array)
        return arrays

    def _groups(self, rows):
        """Indexes of requests that can run as one batch: same shape but for the batch axis."""
        if not self.batched:
            return [[i] for i in range(len(rows))]
        groups = {}
        for i, arrays in enumerate(rows):
            groups.setdefault(tuple(array.shape[1:] for array in arrays), []).append(i)
        return list(groups.values())

    def _answer(self, group, requests, rows, responses):
        try:
            feed = {
                name: rows[group[0]][k]
                if len(group) == 1
                else np.concatenate([rows[i][k] for i in group])
                for k, name in enumerate(self.inputs)
            }
            outputs = self.session.run(self.wanted, feed)
        except Exception as error:
            if len(group) > 1:
                # One bad request must not take its neighbours with it.
                for i in group:
                    self._answer([i], requests, rows, responses)
                return
            responses[group[0]] = pb_utils.InferenceResponse(
                error=pb_utils.TritonError(f"onnxruntime: {error}")
            )
            return
        start = 0
        for i in group:
            stop = start + (rows[i][0].shape[0] if self.batched else 0)
            requested = set(requests[i].requested_output_names())
            responses[i] = pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, _plain(array[start:stop] if self.batched else array))
                    for name, array in zip(self.wanted, outputs, strict=True)
                    if name in requested
                ]
            )
            start = stop


def _plain(array):
    if array.dtype.kind in "US":
        return array.astype(np.object_)
    return np.ascontiguousarray(array)
