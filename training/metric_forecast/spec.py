"""What the rest of the project knows about the forecaster."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from training.metric_forecast.graph import PRESETS, preset_graph
from training.metric_forecast.parity import PARITY
from training.spec import Benchmark, ModelSpec

if TYPE_CHECKING:
    import torch

    from training.artifact import Artifact
    from training.run import TrainRun


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


def _add_accuracy_arguments(parser: ArgumentParser) -> None:
    from training.metric_forecast.benchmark.accuracy import add_arguments

    add_arguments(parser)


def _accuracy(arguments: Namespace) -> str:
    from training.metric_forecast.benchmark.accuracy import run

    return run(arguments)


def _add_alerts_arguments(parser: ArgumentParser) -> None:
    from training.metric_forecast.benchmark.alerts import add_arguments

    add_arguments(parser)


def _alerts(arguments: Namespace) -> str:
    from training.metric_forecast.benchmark.alerts import run

    return run(arguments)


def _add_companions_arguments(parser: ArgumentParser) -> None:
    from training.metric_forecast.benchmark.companions import add_arguments

    add_arguments(parser)


def _companions(arguments: Namespace) -> str:
    from training.metric_forecast.benchmark.companions import run

    return run(arguments)


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
    parity=PARITY,
    add_predict_arguments=_add_predict_arguments,
    predict=_predict,
    golden_questions=golden_questions,
    quick={"epochs": 0.35},
    benchmarks={
        "metric_forecast": Benchmark(
            "forecast error on held-out parts of every series, beside simple and classical methods",
            _add_accuracy_arguments,
            _accuracy,
        ),
        "alerts": Benchmark(
            "12 h threshold alerts replayed: predict_linear, seasonal naive, the model, and both",
            _add_alerts_arguments,
            _alerts,
        ),
        "companions": Benchmark(
            "what other series of the same machine add: with them, without, and the plain network",
            _add_companions_arguments,
            _companions,
        ),
    },
)
