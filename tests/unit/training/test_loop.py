"""The training loop: same seed, same weights; a resumed run ends where an unbroken one does."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contract.errors import ArtifactCorruptError
from training.artifact import CHECKPOINT_FILE
from training.data.source import DataSource
from training.loop import Batch, LoopSettings, fit, seed_everything
from training.run import TrainRun

SETTINGS = LoopSettings(steps=12, learning_rate=0.05, ema_decay=0.9, checkpoint_every_steps=5)


class _InterruptedError(Exception):
    pass


def make_run(path: Path, seed: int = 0) -> TrainRun:
    path.mkdir(exist_ok=True)
    return TrainRun(
        model="toy",
        preset="default",
        path=path,
        data=DataSource(None, "generated"),
        seed=seed,
        device="cpu",
        arguments=Namespace(),
        progress=False,
    )


def make_network(seed: int = 0) -> nn.Module:
    seed_everything(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))


def draw(generator: np.random.Generator) -> Batch:
    x = torch.from_numpy(generator.normal(size=(8, 3)).astype(np.float32))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def loss_of(module: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(module(batch["x"]), batch["y"])


def weights(network: nn.Module) -> list[np.ndarray]:
    return [value.detach().numpy().copy() for value in network.state_dict().values()]


def train(path: Path, *, seed: int = 0, break_at: int | None = None) -> nn.Module:
    network, calls = make_network(seed), 0

    def breaking_loss(module: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if break_at is not None and calls > break_at:
            raise _InterruptedError
        return loss_of(module, batch)

    fit(network, draw, breaking_loss, SETTINGS, make_run(path, seed), "toy")
    return network


def test_the_loss_falls(tmp_path: Path) -> None:
    network = make_network()
    losses = fit(
        network, draw, loss_of, LoopSettings(steps=60, learning_rate=0.05), make_run(tmp_path), "t"
    )
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


@pytest.mark.parametrize("steps", [2, 5, 10, 11, 20])
def test_any_number_of_steps_can_be_trained(steps: int, tmp_path: Path) -> None:
    """A tenth of 10 steps is a warm-up of one step, of which PyTorch's schedule has no slope."""
    settings = LoopSettings(steps=steps, learning_rate=0.05)
    losses = fit(make_network(), draw, loss_of, settings, make_run(tmp_path), "toy")
    assert len(losses) == steps


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)
    other = train(tmp_path / "c", seed=1)
    assert not np.array_equal(weights(first)[0], weights(other)[0])


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken")
    with pytest.raises(_InterruptedError):
        train(tmp_path / "broken", break_at=8)
    assert (tmp_path / "broken" / CHECKPOINT_FILE).is_file()
    resumed = train(tmp_path / "broken")
    for a, b in zip(weights(unbroken), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(ArtifactCorruptError, match="cannot be resumed"):
        train(tmp_path)


def test_gradient_accumulation_sees_every_micro_batch(tmp_path: Path) -> None:
    drawn = 0

    def counting_draw(generator: np.random.Generator) -> Batch:
        nonlocal drawn
        drawn += 1
        return draw(generator)

    settings = LoopSettings(steps=3, learning_rate=0.05, gradient_accumulation=4)
    fit(make_network(), counting_draw, loss_of, settings, make_run(tmp_path), "toy")
    assert drawn == 12
