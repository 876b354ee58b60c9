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
        artifact = Artifact.load(arguments.run_folder)
    else:
        artifact = Artifact.latest(MODEL, arguments.preset, arguments.artifacts)
    manifest = artifact.manifest
    splits = " ".join(quality.split for quality in manifest.quality)
    unseen = bool(held) and all(name in splits for name in held)
    description = f"run {manifest.run_id}, seed {manifest.seed}"
    if held and not unseen:
        description += "; it learnt from the first 80% of these systems"
    return Judged({"this model": load_network(artifact)}, description, unseen)


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
