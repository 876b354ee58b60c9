"""PyTorch network → ``model.onnx``, and the checks that need no inputs.

Both exporters end in ``torch.onnx.export(dynamo=False)``: graphs of the dynamo exporter fuse no
Attention in ONNX Runtime's transformer optimizer.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.errors import ExportError
from contract.manifest import Graph, Tensor
from export.container import ContainerLimits
from export.inspection import require_onnx
from training.spec import Arrays


def export_onnx(
    exporter: str,
    network: torch.nn.Module,
    graph: Graph,
    sample: Arrays,
    path: Path,
    limits: ContainerLimits,
) -> None:
    """Write ``path`` with a dynamic batch axis and every -1 axis dynamic, and check it.

    sample: {input name: array (batch, …)}, rows the network is traced with

    Raises:
        ExportError: the graph is not what the manifest says, or too new for the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {tensor.name: torch.from_numpy(sample[tensor.name]) for tensor in graph.inputs}
    export = _with_optimum if exporter == "optimum" else _with_torch
    try:
        with quiet():
            export(network, graph, tensors, path, limits.opset)
    except ExportError:
        raise
    except Exception as error:  # the exporters raise anything at all
        raise ExportError(
            f"{graph.triton_name}: ONNX export failed",
            where=str(path),
            got=f"{type(error).__name__}: {_first_line(error)}",
        ) from error
    require_onnx(path, graph, limits)


def dynamic_axes(tensors: tuple[Tensor, ...]) -> dict[str, dict[int, str]]:
    """Axis 0 is the batch; every -1 is the one sequence axis."""
    return {
        tensor.name: {0: "batch"}
        | {axis + 1: "sequence" for axis, size in enumerate(tensor.dims) if size == -1}
        for tensor in tensors
    }


def _with_torch(
    network: torch.nn.Module,
    graph: Graph,
    tensors: dict[str, torch.Tensor],
    path: Path,
    opset: int,
) -> None:
    torch.onnx.export(
        network,
        tuple(tensors.values()),
        str(path),
        input_names=[tensor.name for tensor in graph.inputs],
        output_names=[tensor.name for tensor in graph.outputs],
        dynamic_axes=dynamic_axes((*graph.inputs, *graph.outputs)),
        opset_version=opset,
        dynamo=False,
    )


def _with_optimum(
    network: torch.nn.Module,
    graph: Graph,
    tensors: dict[str, torch.Tensor],
    path: Path,
    opset: int,
) -> None:
    from optimum.exporters.onnx import export
    from optimum.exporters.onnx.base import OnnxConfig
    from optimum.utils import NormalizedTextConfig

    config = transformer_config(network)
    expected = [tensor.name for tensor in graph.inputs]
    arguments = list(inspect.signature(network.forward).parameters)
    if arguments[: len(expected)] != expected:
        raise ExportError(
            f"{graph.triton_name}: the network takes other inputs than its graph",
            expected=f"forward({', '.join(expected)})",
            got=f"forward({', '.join(arguments)})",
        )

    class GraphConfig(OnnxConfig):  # type: ignore[misc]
        """optimum's declarative contract, filled from the manifest's graph."""

        NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
        DUMMY_INPUT_GENERATOR_CLASSES = ()

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return dynamic_axes(graph.inputs)

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return dynamic_axes(graph.outputs)

        def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
            if framework == "np":
                return {name: tensor.numpy() for name, tensor in tensors.items()}
            return dict(tensors)

    if getattr(network, "config", None) is not config:
        network.config = config
    export(model=network, config=GraphConfig(config), output=path, opset=opset)


def transformer_config(network: torch.nn.Module) -> Any:
    """The transformers config inside a network. Raises ExportError: it has none."""
    for module in network.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "model_type"):
            return config
    raise ExportError(
        "optimum exports transformers only",
        expected="a module with a transformers config inside",
        got=type(network).__name__,
        next_command='set exporter="torch" in its spec',
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn at every run about what is meant; parity judges the result instead."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def as_tensors(graph: Graph, arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Arrays in the order of the graph's inputs, without a copy where possible."""
    return tuple(
        torch.from_numpy(np.ascontiguousarray(arrays[tensor.name])) for tensor in graph.inputs
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
