"""What the rest of the project knows about the forecaster."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.errors import InputError
from contract.manifest import Manifest
from training.metric_forecast.graph import PRESETS, preset_graph
from training.spec import Arrays, Decisions, ModelSpec, Padding

if TYPE_CHECKING:
    import torch

    from training.artifact import Artifact
    from training.run import TrainRun

_MISSING_SHARE: dict[Padding, float] = {"none": 0.0, "half": 0.5, "most": 0.9}


def parity_inputs(artifact: Artifact, batch: int, length: int, padding: Padding) -> Arrays:
    """Golden rows cut to their newest ``length`` steps, of which a share is then missing too.

    The newest finite point stays: a window without one has no forecast to compare.
    """
    golden = artifact.golden()
    context_length = golden["series"].shape[1]
    if not 1 <= length <= context_length:
        raise InputError(
            "parity length out of range", expected=f"1 … {context_length}", got=str(length)
        )
    random = np.random.default_rng([batch, length, len(padding)])
    rows = np.arange(batch) % len(golden["series"])
    series = np.full((batch, context_length), np.nan, dtype=np.float32)
    for i, row in enumerate(golden["series"][rows]):
        finite = np.flatnonzero(np.isfinite(row))
        end = finite[-1] + 1
        # Shift the newest point to the window's end, so that even one step is a real one.
        kept = row[max(0, end - length) : end].copy()
        kept[:-1][random.random(len(kept) - 1) < _MISSING_SHARE[padding]] = np.nan
        series[i, context_length - len(kept) :] = kept
    return {"series": series, "season_length": golden["season_length"][rows]}


def decide(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> Decisions:
    """Two decisions a row: which expert speaks, and whether the median ends above the window's
    95th percentile (what an alert asks).

    The margin of the alert is its distance in units of the window's spread. The margin of the
    expert is 0, "not known": it is the gap of two back-test errors, which stay inside the graph.
    """
    quantiles = [float(q) for q in manifest.graph.parameters["quantiles"].split(",")]
    series = inputs["series"].astype(np.float64)
    median = outputs["forecast"][:, -1, quantiles.index(0.5)].astype(np.float64)
    known = np.isfinite(series).any(axis=1)
    safe = np.where(known[:, None], series, 0.0)
    threshold = np.nanquantile(safe, 0.95, axis=1)
    spread = np.nanmax(safe, axis=1) - np.nanmin(safe, axis=1)
    distance = np.abs(median - threshold)
    margin = np.where(spread > 0, distance / np.where(spread > 0, spread, 1.0), distance)
    source = outputs["source"].reshape(-1).astype(np.int64)
    return Decisions(
        values=np.stack([source, (median > threshold).astype(np.int64)], axis=1),
        margins=np.stack([np.zeros_like(margin), np.nan_to_num(margin)], axis=1),
    )


def golden_questions(artifact: Artifact) -> Iterable[Any]:
    return artifact.golden_questions()


def _add_train_arguments(parser: ArgumentParser) -> None:
    from training.metric_forecast.arguments import add_train_arguments

    add_train_arguments(parser)


def _add_predict_arguments(parser: ArgumentParser) -> None:
    from training.metric_forecast.arguments import add_predict_arguments

    add_predict_arguments(parser)


def _train(run: TrainRun) -> Artifact:
    from training.metric_forecast.train import train

    return train(run)


def _load_network(artifact: Artifact) -> torch.nn.Module:
    from training.metric_forecast.predict import load_network

    return load_network(artifact)


def _predict(artifact: Artifact, arguments: Namespace) -> Iterator[Mapping[str, Any]]:
    from training.metric_forecast.predict import predict

    return predict(artifact, arguments)


SPEC = ModelSpec(
    name="metric_forecast",
    question="where will this metric be in the next step, and in 12 hours?",
    presets=tuple(PRESETS),
    graph=preset_graph,
    front=lambda preset: None,
    labels=(),
    exporter="torch",
    add_train_arguments=_add_train_arguments,
    train=_train,
    load_network=_load_network,
    parity_inputs=parity_inputs,
    decide=decide,
    add_predict_arguments=_add_predict_arguments,
    predict=_predict,
    golden_questions=golden_questions,
)
