"""Where an export is going to be served: backend, precision, repository, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.errors import InputError

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Target:
    """One model repository. ``allowed_flip_share`` of the decisions may change, and none whose
    distance from the threshold is above ``allowed_flip_margin``."""

    name: str
    summary: str
    backend: Literal["onnxruntime", "openvino"]
    precision: Precision
    repository: Path
    on_gpu: bool = False
    # TorchScript is the other fp32 format; a reduced target has one file only.
    torchscript: bool = False

    @property
    def reduced(self) -> bool:
        return self.precision != "fp32"

    @property
    def allowed_flip_share(self) -> float:
        return 0.001 if self.reduced else 0.0

    @property
    def allowed_flip_margin(self) -> float:
        return 0.05 if self.reduced else 0.0

    @property
    def required_rungs(self) -> tuple[str, ...]:
        """Rungs without which nothing is published: what is served must have been asked so."""
        offline = (self.backend, "torchscript") if self.torchscript else (self.backend,)
        return (*offline, "grpc", "http", "concurrent")


CPU = Target(
    name="cpu",
    summary="fp32 ONNX for any Triton",
    backend="onnxruntime",
    precision="fp32",
    repository=Path("model_repository"),
    torchscript=True,
)
TARGETS = {
    target.name: target
    for target in (
        CPU,
        Target(
            name="cpu-int8",
            summary="dynamic int8 weights, a scale per channel",
            backend="onnxruntime",
            precision="int8",
            repository=Path("build/repositories/cpu-int8"),
        ),
        Target(
            name="cpu-openvino",
            summary="the fp32 file on Triton's openvino backend, bf16 where the CPU has it",
            backend="openvino",
            precision="bf16",
            repository=Path("build/repositories/cpu-openvino"),
        ),
        Target(
            name="cpu-openvino-int8",
            summary="int8 weights on the openvino backend, activations quantised token by token",
            backend="openvino",
            precision="int8",
            repository=Path("build/repositories/cpu-openvino-int8"),
        ),
        Target(
            name="gpu",
            summary="fused, fp16 inside, fp32 where a value would overflow",
            backend="onnxruntime",
            precision="fp16",
            repository=Path("build/repositories/gpu"),
            on_gpu=True,
        ),
    )
}


def get_target(name: str) -> Target:
    """Raises InputError for a target that is not there."""
    if name not in TARGETS:
        raise InputError("unknown target", expected=f"one of {', '.join(TARGETS)}", got=name)
    return TARGETS[name]
