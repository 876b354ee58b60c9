"""The one training loop: device, precision, gradient accumulation, DDP, checkpoint and resume.

A model brings a network, a function that draws the batch of a step, and a loss. Batches are drawn
from (seed, step, rank) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from contract.errors import ArtifactCorruptError
from training.artifact import CHECKPOINT_FILE
from training.run import TrainRun, join_process_group, pick_device

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """``steps`` optimiser steps of a one-cycle schedule; ``ema_decay`` None: the last weights."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    gradient_accumulation: int = 1
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    ema_decay: float | None = None
    checkpoint_every_steps: int = 50


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and ask torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every fresh buffer is for finding bugs; it costs a tenth of a BERT step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def generator_of(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """The random stream of one step on one rank."""
    return np.random.default_rng([seed, step, rank])


def fit(
    network: nn.Module,
    draw: Callable[[np.random.Generator], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    settings: LoopSettings,
    run: TrainRun,
    description: str,
) -> list[float]:
    """Train ``network`` in place and return the loss of every step (rank 0's).

    ``draw(generator)`` makes one micro-batch of CPU tensors; ``loss_of(module, batch)`` returns a
    scalar and must call ``module`` itself, so that DDP sees the forward pass.
    After an interruption the same run folder resumes from its checkpoint (``--resume``).
    """
    device = pick_device(run.device)
    network.to(device).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    # A warm-up of exactly one step would have no length (a division by zero in PyTorch).
    warmup_steps = settings.warmup_share * settings.steps
    if abs(warmup_steps - 1) < 1e-9:
        warmup_steps = 1.5
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings.learning_rate,
        total_steps=settings.steps,
        pct_start=warmup_steps / settings.steps,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    average = (
        {name: value.detach().clone() for name, value in network.state_dict().items()}
        if settings.ema_decay is not None
        else None
    )
    start, losses = _resume(network, optimizer, schedule, average, run, device)
    module: nn.Module = network
    if run.world_size > 1:
        join_process_group(run.device)
        ids = [device.index] if device.type == "cuda" else None
        module = DistributedDataParallel(network, device_ids=ids)

    bar = tqdm(
        range(start, settings.steps),
        initial=start,
        total=settings.steps,
        desc=description,
        unit="step",
        disable=not run.progress or run.rank != 0,
        mininterval=0.5,
    )
    for step in bar:
        # Dropout and the like draw from torch's stream: pin it to the step, for exact resumption.
        torch.manual_seed(run.seed * 1_000_003 + step * 131 + run.rank)
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        generator = generator_of(run.seed, step, run.rank)
        for micro in range(settings.gradient_accumulation):
            batch = {name: t.to(device) for name, t in draw(generator).items()}
            last = micro == settings.gradient_accumulation - 1
            with _no_sync_unless(module, last), _autocast(device, settings.precision):
                loss = loss_of(module, batch) / settings.gradient_accumulation
                loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
        schedule.step()
        if average is not None and settings.ema_decay is not None:
            _follow(average, network, min(settings.ema_decay, (1 + step) / (10 + step)))
        losses.append(total)
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}", refresh=False)
        if (step + 1) % settings.checkpoint_every_steps == 0 and run.rank == 0:
            _save(network, optimizer, schedule, average, losses, step + 1, run)
    if average is not None:
        network.load_state_dict(average)
    network.eval()
    return losses


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _no_sync_unless(module: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return contextlib.nullcontext()


def _follow(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)


def _save(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    average: dict[str, Tensor] | None,
    losses: list[float],
    step: int,
    run: TrainRun,
) -> None:
    temporary = run.path / (CHECKPOINT_FILE + ".partial")
    torch.save(
        {
            "step": step,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average,
            "losses": losses,
        },
        temporary,
    )
    temporary.replace(run.path / CHECKPOINT_FILE)


def _resume(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    average: dict[str, Tensor] | None,
    run: TrainRun,
    device: torch.device,
) -> tuple[int, list[float]]:
    path = (run.checkpoint_folder or run.path) / CHECKPOINT_FILE
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ArtifactCorruptError(
            "checkpoint cannot be resumed",
            where=str(path),
            expected="a checkpoint of the same model and settings",
            got=str(error).splitlines()[0],
            next_command="start anew: the same command without --resume",
        ) from error
    if average is not None and state["average"] is not None:
        for name, value in state["average"].items():
            average[name].copy_(value)
    return int(state["step"]), list(state["losses"])
