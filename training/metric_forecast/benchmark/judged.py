"""The networks that a benchmark judges: a run from a folder, or one trained anew per seed."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import InputError
from training.artifact import Artifact, new_run_id
from training.data.source import DataSource
from training.metric_forecast.arguments import add_train_arguments
from training.metric_forecast.benchmark.table import parse_seeds
from training.metric_forecast.predict import load_network
from training.metric_forecast.train import train
from training.run import TrainRun

if TYPE_CHECKING:
    from training.metric_forecast.network import LSTMForecast

MODEL = "metric_forecast"


@dataclass(frozen=True)
class Judged:
    """The networks of the row "this model": one run, or one per seed.

    unseen: no judged system was among what they learnt from
    """

    networks: dict[str, LSTMForecast]
    description: str
    unseen: bool

    @property
    def label(self) -> str:
        return (
            "this model" if len(self.networks) == 1 else f"this model, {len(self.networks)} seeds"
        )


def held_out_names(arguments: Namespace) -> list[str]:
    """``--hold-out family/system,…`` as a list."""
    return [name for name in arguments.hold_out.split(",") if name]


def find_judged(arguments: Namespace, data: DataSource) -> Judged:
    """What ``--train-seeds``, ``--run-folder`` or ``--preset`` name.

    Raises:
        InputError: seeds that are no numbers, or seeds and a folder at once.
        ArtifactError: no run, or one that cannot be read.
    """
    held = held_out_names(arguments)
    seeds = parse_seeds(arguments.train_seeds)
    if seeds:
        if arguments.run_folder is not None:
            raise InputError(
                "trained anew or read from a folder, not both",
                where="--train-seeds, --run-folder",
            )
        return _train_seeds(arguments, data, seeds)
    if arguments.run_folder is not None:
        artifacts = [Artifact.load(folder) for folder in arguments.run_folder]
    else:
        artifacts = [Artifact.latest(MODEL, arguments.preset, arguments.artifacts)]
    shapes = {_shape(artifact) for artifact in artifacts}
    if len(shapes) > 1:
        raise InputError(
            "runs of one recipe wanted",
            where="--run-folder",
            expected="the same context length and horizon",
            got=", ".join(f"{context} → {horizon}" for context, horizon in sorted(shapes)),
        )
    unseen = bool(held) and all(
        name in " ".join(quality.split for quality in artifact.manifest.quality)
        for name in held
        for artifact in artifacts
    )
    runs = [f"{one.manifest.run_id}, seed {one.manifest.seed}" for one in artifacts]
    description = f"run {'; '.join(runs)}"
    if held and not unseen:
        description += "; it learnt from the first 80% of these systems"
    names = ["this model"] if len(runs) == 1 else runs
    networks = [load_network(artifact) for artifact in artifacts]
    return Judged(dict(zip(names, networks, strict=True)), description, unseen)


def _shape(artifact: Artifact) -> tuple[int, int]:
    parameters = artifact.manifest.graph.parameters
    return int(parameters["context_length"]), int(parameters["horizon"])


def _train_seeds(arguments: Namespace, data: DataSource, seeds: Sequence[int]) -> Judged:
    """One run per seed in a folder that is thrown away."""
    parser = ArgumentParser(prog="--train-flags")
    add_train_arguments(parser)
    flags = parser.parse_args(
        [*shlex.split(arguments.train_flags), "--hold-out", arguments.hold_out]
    )
    networks = {}
    with tempfile.TemporaryDirectory(prefix="presage-benchmark-") as folder:
        for seed in dict.fromkeys(seeds):
            path = Path(folder) / MODEL / new_run_id(arguments.preset, seed)
            path.mkdir(parents=True)
            # What training says is not the table.
            with contextlib.redirect_stdout(sys.stderr):
                artifact = train(
                    TrainRun(
                        model=MODEL,
                        preset=arguments.preset,
                        path=path,
                        data=data,
                        seed=seed,
                        device="auto",
                        arguments=flags,
                        progress=not arguments.quiet,
                    )
                )
            networks[f"seed {seed}"] = load_network(artifact)
    words = ", ".join(networks)
    without = f"without {arguments.hold_out}" if arguments.hold_out else "on all systems"
    flags_used = f", {arguments.train_flags}" if arguments.train_flags else ""
    description = f"trained for this table ({words}; {without}{flags_used})"
    return Judged(networks, description, bool(arguments.hold_out))
