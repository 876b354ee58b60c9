"""The ways to run one network in this process, each from host arrays to host arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import ExportError
from export.candidate import MODEL_FILES
from export.container import container_limits
from export.half import convert_half
from export.onnx_export import as_tensors, export_onnx, quiet
from export.optimise import optimise
from loadtest.gpu_proof.machine import CUDA_PROVIDER
from loadtest.gpu_proof.subjects import Subject
from loadtest.served import Arrays

if TYPE_CHECKING:
    import torch

Run = Callable[[Arrays], Arrays]
EAGER, COMPILED, TORCHSCRIPT, ONNX, CUDA_GRAPH = (
    "eager fp32",
    "bf16 + torch.compile",
    "TorchScript fp32",
    "ONNX Runtime fp16",
    "CUDA graph fp32",
)
SIDES = (EAGER, COMPILED, TORCHSCRIPT, ONNX, CUDA_GRAPH)


class NotMeasuredError(Exception):
    """A side that this machine or this network cannot run; the message is the reason."""


def make_side(name: str, subject: Subject, device: str, folder: Path) -> Run:
    """A side ready to answer. Raises NotMeasuredError."""
    makers: dict[str, Callable[[Subject, str, Path], Run]] = {
        EAGER: _eager,
        COMPILED: _compiled,
        TORCHSCRIPT: _torchscript,
        ONNX: _onnx,
        CUDA_GRAPH: _cuda_graph,
    }
    try:
        return makers[name](subject, device, folder)
    except NotMeasuredError:
        raise
    except Exception as error:  # each runtime raises its own
        raise NotMeasuredError(reason(error)) from error


def reason(error: BaseException) -> str:
    """The first line of what a runtime raised."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _eager(subject: Subject, device: str, _folder: Path) -> Run:
    return _torch_run(subject, copy.deepcopy(subject.network).to(device), device)


def _compiled(subject: Subject, device: str, _folder: Path) -> Run:
    import torch

    if device == "cpu" and not subject.is_text:
        raise NotMeasuredError("a forecaster compiles for more than four minutes on a CPU")
    # A compiled network of an earlier subject must not count as a recompilation of this one.
    torch._dynamo.reset()
    compiled: Any = torch.compile(copy.deepcopy(subject.network).to(device), dynamic=True)

    def forward(*tensors: torch.Tensor) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return compiled(*tensors)

    run = _torch_run(subject, forward, device)
    run(subject.inputs(subject.batches[0], subject.lengths[0], 0))
    return run


def _torchscript(subject: Subject, device: str, folder: Path) -> Run:
    import torch

    path = torchscript_file(subject, device, folder)
    with quiet():
        module: Any = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    return _torch_run(subject, module, device)


def _onnx(subject: Subject, device: str, folder: Path) -> Run:
    import onnxruntime

    wanted = CUDA_PROVIDER if device == "cuda" else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise NotMeasuredError(f"ONNX Runtime has no {wanted}: make gpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(onnx_file(subject, folder)),
        options,
        providers=list(dict.fromkeys((wanted, "CPUExecutionProvider"))),
    )
    if session.get_providers()[0] != wanted:
        # It falls back without a word when a library of the provider cannot be loaded.
        raise NotMeasuredError(f"ONNX Runtime fell back to {session.get_providers()[0]}")
    names = [tensor.name for tensor in subject.graph.outputs]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _cuda_graph(subject: Subject, device: str, _folder: Path) -> Run:
    """One captured graph a shape: launching many small kernels costs one launch."""
    import torch

    if device != "cuda":
        raise NotMeasuredError("needs a GPU")
    if subject.is_text:
        raise NotMeasuredError("asked of the LSTM only")
    network = copy.deepcopy(subject.network).to(device)
    captured: dict[tuple[int, ...], tuple[Any, tuple[torch.Tensor, ...], Any]] = {}

    def capture(tensors: tuple[torch.Tensor, ...]) -> Any:
        inputs = tuple(tensor.to(device) for tensor in tensors)
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.inference_mode():
            for _ in range(3):
                network(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            outputs = network(*inputs)
        return graph, inputs, outputs

    def run(arrays: Arrays) -> Arrays:
        tensors = as_tensors(subject.graph, arrays)
        shape = tuple(size for tensor in tensors for size in tensor.shape)
        if shape not in captured:
            captured[shape] = capture(tensors)
        graph, inputs, outputs = captured[shape]
        for mine, theirs in zip(inputs, tensors, strict=True):
            mine.copy_(theirs)
        graph.replay()
        return _named(subject, outputs)

    run(subject.inputs(subject.batches[0], subject.lengths[0], 0))
    return run


def onnx_file(subject: Subject, folder: Path) -> Path:
    """The fused fp16 file as target ``gpu`` publishes it; written once. Raises NotMeasuredError."""
    path = folder / subject.name / MODEL_FILES["onnx"]
    if path.is_file():
        return path
    # Two rows, so that a batch axis of one is not baked in.
    sample = subject.inputs(2, subject.lengths[0], 0)
    exporter = "optimum" if subject.is_text else "torch"
    unfinished = folder / f"{subject.name}.partial" / path.name
    try:
        export_onnx(
            exporter, subject.network, subject.graph, sample, unfinished, container_limits()
        )
        if subject.is_text:
            optimise(unfinished, subject.network, subject.graph)
        convert_half(
            unfinished,
            subject.graph,
            [subject.inputs(16, subject.lengths[-1], 1)],
            matrices_only=not subject.is_text,
        )
    except ExportError as error:
        raise NotMeasuredError(f"fp16 export: {reason(error)}") from error
    unfinished.parent.rename(path.parent)
    return path


def torchscript_file(subject: Subject, device: str, folder: Path) -> Path:
    """Traced on the device that runs it: a trace bakes the device of every new tensor in."""
    import torch

    path = folder / f"{subject.name}_{device}.pt"
    if path.is_file():
        return path
    network = copy.deepcopy(subject.network).to(device)
    arrays = subject.inputs(2, subject.lengths[0], 0)
    sample = tuple(tensor.to(device) for tensor in as_tensors(subject.graph, arrays))
    with quiet(), torch.no_grad():
        traced: Any = torch.jit.trace(network, sample, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced.eval()), str(path))
    return path


def _torch_run(subject: Subject, forward: Any, device: str) -> Run:
    import torch

    def run(arrays: Arrays) -> Arrays:
        tensors = (tensor.to(device) for tensor in as_tensors(subject.graph, arrays))
        with torch.inference_mode():
            outputs = forward(*tensors)
        # Copying to the host waits for the device.
        return _named(subject, outputs)

    return run


def _named(subject: Subject, outputs: Any) -> Arrays:
    return {
        tensor.name: (output.float() if output.is_floating_point() else output).cpu().numpy()
        for tensor, output in zip(subject.graph.outputs, outputs, strict=True)
    }
