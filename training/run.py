"""One training run as a model's ``train`` sees it: where to write, what to read, how to compute."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import InputError
from training.data.source import DataSource

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainRun:
    """``path`` exists and is this run's own folder; ``arguments`` holds the model's own flags."""

    model: str
    preset: str
    path: Path
    data: DataSource
    seed: int
    device: str
    arguments: Namespace
    strict: bool = False
    progress: bool = True

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
        raise InputError(
            "no CUDA device here", where="--device", expected="cpu or auto", got=name
        )
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError("unknown device", where="--device", got=name) from error
