"""PyTorch network → ``model.pt``: traced, frozen, and tried at another batch than it was traced."""

from __future__ import annotations

from pathlib import Path

import torch

from contract.errors import ExportError
from contract.manifest import Graph
from export.onnx_export import as_tensors, quiet
from training.spec import Arrays


def export_torchscript(
    network: torch.nn.Module, graph: Graph, sample: Arrays, other: Arrays, path: Path
) -> None:
    """Write ``path``.

    sample: {input name: array (batch, …)} it is traced with
    other: the same of another batch size and, where an axis is dynamic, another length

    Raises:
        ExportError: it cannot be traced, or answers only what it was traced with.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(network, as_tensors(graph, sample), check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced.eval())
            torch.jit.save(frozen, str(path))
            outputs = load_torchscript(path)(*as_tensors(graph, other))
    except Exception as error:  # TorchScript raises RuntimeError and many more
        raise ExportError(
            f"{graph.triton_name}: TorchScript export failed",
            where=str(path),
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
        ) from error
    rows = len(next(iter(other.values())))
    shapes = [tuple(output.shape) for output in outputs]
    if any(shape[:1] != (rows,) for shape in shapes):
        raise ExportError(
            f"{graph.triton_name}: TorchScript kept the batch it was traced with",
            where=str(path),
            expected=f"{rows} rows",
            got=", ".join(map(str, shapes)),
        )


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    with quiet():
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module
