"""Stand-in for Triton's native ``openvino`` backend: the same config.pbtxt, on CPU.

Runs inside Triton's Python stub (numpy < 2). Honours ``default_model_filename``,
INFERENCE_NUM_THREADS, NUM_STREAMS, COMPILATION_NUM_THREADS, PERFORMANCE_HINT, HINT_BF16, and
refuses what the native backend refuses. See the README of openvino_backend for their meaning.
DYNAMIC_QUANTIZATION_GROUP_SIZE is its own: the native backend leaves that at OpenVINO's default.

The native backend does not batch: with ``max_batch_size`` above 0 it fixes the batch axis there and
answers "expected requests with batch size '8', got '2'" to anything else
(triton-inference-server/server issue 7363). So the batch axis is an ordinary first of ``dims``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb_utils

_TRITON_TYPES = {
    "f32": "TYPE_FP32",
    "f16": "TYPE_FP16",
    "f64": "TYPE_FP64",
    "i64": "TYPE_INT64",
    "i32": "TYPE_INT32",
    "i8": "TYPE_INT8",
    "u8": "TYPE_UINT8",
    "boolean": "TYPE_BOOL",
}
_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")


def _parameter(config, key):
    return config.get("parameters", {}).get(key, {}).get("string_value", "").upper()


def _number(config, key):
    value = _parameter(config, key)
    if value and not value.isdigit():
        raise pb_utils.TritonModelException(f"{key} must be a non-negative number, not {value}")
    return int(value or 0)


def _properties(config, capabilities):
    """What compile_model is asked for.

    Natively all instances share one compiled model of NUM_STREAMS streams. Here each instance is a
    process of its own: it gets one stream, and that stream's share of INFERENCE_NUM_THREADS.
    """
    properties = {
        # Two processes that both pin their thread would share the first core.
        "ENABLE_CPU_PINNING": False,
        # Native: bf16 wherever the CPU computes in it, asked for or not.
        "INFERENCE_PRECISION_HINT": "bf16" if "BF16" in capabilities else "f32",
        # A kernel is made for each shape and kept: texts come in hundreds of shapes, of dozens of
        # kernels each, and the default of 5,000 makes them again and again.
        "CPU_RUNTIME_CACHE_CAPACITY": "100000",
    }
    if _parameter(config, "HINT_BF16") not in ("", "YES"):
        raise pb_utils.TritonModelException("HINT_BF16 must be YES or left out")
    hint = _parameter(config, "PERFORMANCE_HINT")
    if hint and hint not in _HINTS:
        raise pb_utils.TritonModelException(f"PERFORMANCE_HINT must be one of {', '.join(_HINTS)}")
    if hint:
        properties["PERFORMANCE_HINT"] = hint
    streams = _parameter(config, "NUM_STREAMS")
    if streams and streams not in ("AUTO", "NUMA") and not streams.isdigit():
        raise pb_utils.TritonModelException(
            f"NUM_STREAMS must be AUTO, NUMA or a number, not {streams}"
        )
    threads = _number(config, "INFERENCE_NUM_THREADS")
    if streams.isdigit():
        properties["NUM_STREAMS"] = "1"
        threads = max(1, threads // max(1, int(streams))) if threads else 0
    elif streams:
        properties["NUM_STREAMS"] = streams
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    group = _number(config, "DYNAMIC_QUANTIZATION_GROUP_SIZE")
    if group:
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    compilation = _number(config, "COMPILATION_NUM_THREADS")
    if compilation:
        properties["COMPILATION_NUM_THREADS"] = compilation
    return properties


def _by_name(ports, tensors, path, kind):
    """{config's name: port}, of the declared type. A port may have several names."""
    found = {}
    for tensor in tensors:
        name = tensor["name"]
        port = next((port for port in ports if name in port.get_names()), None)
        if port is None:
            known = sorted(name for port in ports for name in port.get_names())
            raise pb_utils.TritonModelException(f"{path}: no {kind} {name!r}, it has {known}")
        actual = _TRITON_TYPES.get(port.get_element_type().get_type_name(), "another type")
        if tensor["data_type"] != actual:
            raise pb_utils.TritonModelException(
                f"{path}: {kind} {name!r} is {actual}, config.pbtxt says {tensor['data_type']}"
            )
        if len(tensor["dims"]) != len(port.get_partial_shape()):
            raise pb_utils.TritonModelException(
                f"{path}: {kind} {name!r} has {len(port.get_partial_shape())} axes, the batch axis"
                f" included, config.pbtxt says {len(tensor['dims'])}"
            )
        found[name] = port
    return found


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Tensors only, and only those that config.pbtxt leaves out altogether."""
        config = auto_complete_model_config.as_dict()
        if config.get("input") and config.get("output"):
            return auto_complete_model_config
        version = Path(pb_utils.get_model_dir())
        model = ov.Core().read_model(str(_model_file(version.parent, version.name, config)))
        for key, ports, add in (
            ("input", model.inputs, auto_complete_model_config.add_input),
            ("output", model.outputs, auto_complete_model_config.add_output),
        ):
            for port in ports if not config.get(key) else ():
                shape = port.get_partial_shape()
                add(
                    {
                        "name": port.get_any_name(),
                        "data_type": _TRITON_TYPES[port.get_element_type().get_type_name()],
                        "dims": [dim.get_length() if dim.is_static else -1 for dim in shape],
                    }
                )
        return auto_complete_model_config

    def initialize(self, args):
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} makes this server answer wrong data; install numpy<2"
            )
        if args["model_instance_kind"] == "GPU":
            raise pb_utils.TritonModelException(
                "the openvino backend supports CPUs only: instance_group kind KIND_CPU"
            )
        config = json.loads(args["model_config"])
        if int(config.get("max_batch_size", 0)) > 0:
            raise pb_utils.TritonModelException(
                f"max_batch_size is {config['max_batch_size']}: the native openvino backend then"
                " answers full batches only; use max_batch_size: 0 with the batch axis as the first"
                " of dims (-1)"
            )
        path = _model_file(args["model_repository"], args["model_version"], config)
        core = ov.Core()
        properties = _properties(config, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        try:
            compiled = core.compile_model(str(path), "CPU", properties)
        except RuntimeError as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from error
        self.inputs = _by_name(compiled.inputs, config["input"], path, "input")
        if len(self.inputs) != len(compiled.inputs):
            known = sorted(port.get_any_name() for port in compiled.inputs)
            raise pb_utils.TritonModelException(
                f"{path}: has inputs {known}, config.pbtxt names {sorted(self.inputs)}"
            )
        self.outputs = _by_name(compiled.outputs, config["output"], path, "output")
        self.request = compiled.create_infer_request()
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        pb_utils.Logger.log_info(
            f"{args['model_name']}: OpenVINO {ov.get_version()}, computes in {precision},"
            f" {compiled.get_property('INFERENCE_NUM_THREADS')} thread(s)"
        )

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            feed = {
                port: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name, port in self.inputs.items()
            }
            # Shared, not copied: a copy of another length than the model takes is refused once,
            # and answered from resized memory the next time.
            results = self.request.infer(feed, share_inputs=True)
        except Exception as error:  # openvino's binding raises RuntimeError, TypeError, ValueError
            reason = " ".join(str(error).split())
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"openvino: {reason}"))
        requested = set(request.requested_output_names())
        return pb_utils.InferenceResponse(
            [
                # A copy: the array is the infer request's own memory, reused by the next answer.
                pb_utils.Tensor(name, np.array(results[port]))
                for name, port in self.outputs.items()
                if name in requested
            ]
        )


def _model_file(repository, version, config):
    path = Path(repository) / str(version) / (config.get("default_model_filename") or "model.xml")
    if not path.is_file():
        raise pb_utils.TritonModelException(f"no model file {path}")
    return path
