"""What is on this machine that a GPU's figures need; what is missing, and why it matters."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass

from loadtest.hardware import processor

CUDA_PROVIDER = "CUDAExecutionProvider"
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Check:
    """One part: ``found`` tells its version; ``missing`` why its rows stay empty."""

    part: str
    found: str | None
    missing: str | None = None

    def line(self) -> str:
        return f"{self.part:<24}{self.found or f'missing: {self.missing}'}"


@dataclass(frozen=True)
class Machine:
    """``device``: what torch computes on, ``cuda`` or (a dry run) ``cpu``."""

    device: str
    name: str
    checks: tuple[Check, ...]

    @property
    def has_gpu(self) -> bool:
        return self.device == "cuda"

    def missing(self, part: str) -> str | None:
        """Why a part's rows cannot be measured; None: they can."""
        for check in self.checks:
            if check.part == part and check.found is None:
                return check.missing
        return None


def inspect_machine() -> Machine:
    """GPU, driver, torch, ONNX Runtime's providers, and the ways to run tritonserver."""
    import torch

    checks = [_driver(), Check("torch", f"{torch.__version__} (CUDA {torch.version.cuda})")]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        device = "cuda"
        checks.append(Check("GPU", name))
    else:
        name, device = f"no GPU; {os.cpu_count()} cores of {processor()}", "cpu"
        checks.append(Check("GPU", None, "torch.cuda.is_available() is false"))
    checks += [_compiler(), _onnxruntime(), *_tritons()]
    return Machine(device, name, tuple(checks))


def _driver() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("NVIDIA driver", None, "no nvidia-smi on PATH")
    answer = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return Check("NVIDIA driver", answer or None, "nvidia-smi does not answer")


def _compiler() -> Check:
    """torch.compile writes kernels with Triton, the compiler, and C with a C compiler."""
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        return Check("torch.compile", None, "no C compiler on PATH")
    if importlib.util.find_spec("triton") is None:
        return Check("torch.compile", None, "package triton (the compiler) is not installed")
    return Check("torch.compile", "inductor")


def _onnxruntime() -> Check:
    part = "ONNX Runtime CUDA"
    if importlib.util.find_spec("onnxruntime") is None:
        return Check(part, None, "onnxruntime is not installed: make gpu")
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    if CUDA_PROVIDER not in providers:
        return Check(part, None, f"this build has {', '.join(providers)}: make gpu")
    return Check(part, f"onnxruntime-gpu {onnxruntime.__version__}")


def _tritons() -> list[Check]:
    binary = shutil.which("tritonserver")
    found = [Check("tritonserver", binary, "not on PATH (inside the NGC container it is)")]
    if shutil.which("docker") is None:
        found.append(Check("docker", None, "no docker on PATH"))
    else:
        runtimes = _output("docker", "info", "--format", "{{json .Runtimes}}")
        reason = "docker does not answer" if not runtimes else "no nvidia runtime"
        found.append(Check("docker", "nvidia runtime" if "nvidia" in runtimes else None, reason))
    return found


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else ""
