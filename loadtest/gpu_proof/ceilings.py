"""What the device itself can do, measured in the same run: matrix products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 1.0
_GPU_SIZE, _CPU_SIZE = 8192, 1024


@dataclass(frozen=True)
class Ceilings:
    """matmul: a square bf16 product of ``size``; copy: bytes read and written, device to device."""

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    size: int


def measure_ceilings(device: str) -> Ceilings:
    """Best of the calls that fit into about a second each."""
    import torch

    size = _GPU_SIZE if device == "cuda" else _CPU_SIZE
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    right = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    product = torch.empty_like(left)
    matmul = _best(lambda: torch.matmul(left, right, out=product), device)
    source = torch.empty(size * size * 4, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    return Ceilings(2.0 * size**3 / matmul, 2.0 * source.numel() / copy, size)


def _best(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest call: a ceiling is not a mean."""
    for _ in range(3):
        call()
    synchronise(device)
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        call()
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


def synchronise(device: str) -> None:
    """Wait for what was launched. The CPU has nothing to wait for."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
