"""The rung of the targets on OpenVINO: the file as the openvino backend will run it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import ExportError
from contract.manifest import Graph
from export.config_pbtxt import GROUP_KEY, number_of
from training.spec import Arrays

_INSTALL = "install it: pip install -r requirements/openvino.txt"
# As embedded_triton/backends/openvino/model.py asks for one instance, but for the precision.
_PROPERTIES = {"ENABLE_CPU_PINNING": False, "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": 1}


class OpenVinoRung:
    """OpenVINO's CPU plugin with one thread, in bf16 where this CPU computes in it, and with the
    quantisation of the config.pbtxt (its protobuf message) it will be served with.

    Raises:
        ExportError: openvino is not installed, or cannot compile the file.
    """

    name = "openvino"

    def __init__(self, path: Path, graph: Graph, config: Any) -> None:
        openvino = _import()
        core = openvino.Core()
        wanted = (
            "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        )
        properties: dict[str, Any] = _PROPERTIES | {"INFERENCE_PRECISION_HINT": wanted}
        if group := number_of(config, GROUP_KEY):
            properties[GROUP_KEY] = group
        try:
            compiled = core.compile_model(str(path), "CPU", properties)
            self._inputs = {tensor.name: compiled.input(tensor.name) for tensor in graph.inputs}
            self._outputs = {tensor.name: compiled.output(tensor.name) for tensor in graph.outputs}
        except RuntimeError as error:
            raise ExportError(
                f"{graph.triton_name}: OpenVINO cannot load the export",
                where=str(path),
                got=_last_line(error),
            ) from error
        # Read back: what was asked for is a hint.
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        self.served_by = f"OpenVINO {openvino.__version__}, CPU, {self.precision}, 1 thread"
        if group:
            self.served_by += f", activations in int8 by groups of {group}"
        self._request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> Arrays:
        """Answers of one batch; new arrays, not OpenVINO's own memory."""
        feed = {port: inputs[name] for name, port in self._inputs.items()}
        # Shared as in the backend: copies of a wrong length are refused once only.
        results = self._request.infer(feed, share_inputs=True)
        return {name: np.array(results[port]) for name, port in self._outputs.items()}


def _import() -> Any:
    try:
        # By name: it has no types, and where it is missing mypy would complain otherwise.
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ExportError(
            "targets on OpenVINO need openvino", got=str(error), next_command=_INSTALL
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
