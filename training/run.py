"""One training run as a model's ``train`` sees it: where to write, what to read, how to compute."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import InputError
from training.data.source import DataSource

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainRun:
    """``path`` exists and is this run's own folder; ``arguments`` holds the model's own flags.

    Under torchrun every rank but the first writes into a folder that is thrown away, and all read
    the first one's checkpoint from ``checkpoint_folder``.
    """

    model: str
    preset: str
    path: Path
    data: DataSource
    seed: int
    device: str
    arguments: Namespace
    strict: bool = False
    progress: bool = True
    checkpoint_folder: Path | None = None

    @property
    def rank(self) -> int:
        """Rank of this process under torchrun, else 0. Only rank 0 writes and prints."""
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1"))


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA when there (this rank's own), else the CPU. Raises InputError."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("no CUDA device here", where="--device", expected="cpu or auto", got=name)
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError("unknown device", where="--device", got=name) from error


def join_process_group(device_name: str) -> None:
    """Join torchrun's process group once: gloo on CPU, nccl on CUDA."""
    import torch

    if not torch.distributed.is_initialized():
        kind = pick_device(device_name).type
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")


def share_from_first_rank(make: Callable[[], str]) -> str:
    """``make()`` on the first rank, its answer on all of them (alone: just ``make()``)."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return make()
    answer = [make() if torch.distributed.get_rank() == 0 else ""]
    torch.distributed.broadcast_object_list(answer, src=0)
    return answer[0]
