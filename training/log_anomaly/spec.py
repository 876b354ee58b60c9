"""log_anomaly: is this log line abnormal? BERT with two classes behind a text front."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contract.manifest import Front, Graph, Tensor
from training.artifact import Artifact
from training.log_anomaly.predict import add_predict_arguments, predict
from training.log_anomaly.systems import LABELS, SYSTEM_FILES
from training.run import TrainRun
from training.spec import Adaptation, Benchmark, ModelSpec, Parity
from training.text.text_spec import (
    add_text_train_arguments,
    decide_label,
    describe_text,
    distribution_faults,
    load_text_network,
    text_edges,
    text_front,
    text_graph,
    text_parity_inputs,
)

MAX_TOKENS = 64
PRESET = "line"
ADAPT_STEPS, ADAPT_LEARNING_RATE = 60, 1.5e-4


def graph_of(preset: str, max_tokens: int = MAX_TOKENS) -> Graph:
    return text_graph("log_anomaly_classifier", LABELS, max_tokens)


def front_of(preset: str) -> Front:
    return text_front(
        "log_anomaly",
        "training.log_anomaly.front",
        (
            Tensor(name="label", dtype="BYTES", dims=(1,), unit="normal or anomaly"),
            Tensor(name="score", dtype="FP32", dims=(1,), unit="P(anomaly)"),
            Tensor(name="probabilities", dtype="FP32", dims=(len(LABELS),), unit="probability"),
            Tensor(name="threshold", dtype="FP32", dims=(1,), unit="P(anomaly)"),
            Tensor(name="manifest", dtype="BYTES", dims=(1,), unit="JSON"),
        ),
    )


def add_train_arguments(parser: ArgumentParser) -> None:
    add_text_train_arguments(
        parser, epochs=4, draws=4_000, max_tokens=MAX_TOKENS, learning_rate=1e-4
    )
    parser.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        metavar="SYSTEM",
        help=f"train without these systems ({', '.join(file.system for file in SYSTEM_FILES)})",
    )


def train(run: TrainRun) -> Artifact:
    from training.log_anomaly.train import train_log_anomaly

    return train_log_anomaly(run)


def adapt(parent: Artifact, run: TrainRun) -> Artifact:
    from training.log_anomaly.adapt import adapt_log_anomaly

    return adapt_log_anomaly(parent, run)


def add_adapt_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--labels", type=Path, required=True, help="corrections, label<TAB>text a line"
    )
    parser.add_argument(
        "--unlabelled", type=Path, help="a log of the same system: more of what is normal there"
    )
    parser.add_argument("--steps", type=int, default=ADAPT_STEPS)
    parser.add_argument("--learning-rate", type=float, default=ADAPT_LEARNING_RATE)


def golden_questions(artifact: Artifact) -> Iterable[Any]:
    return artifact.golden_questions()


def _add_benchmark_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3, help="trainings per fold")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--adaptations", type=int, default=3, help="draws of 25 labelled lines to adapt with"
    )


def _benchmark(arguments: Namespace) -> str:
    from training.log_anomaly.benchmark import run_benchmark

    return run_benchmark(arguments)


SPEC = ModelSpec(
    name="log_anomaly",
    question="Is this log line abnormal?",
    presets=(PRESET,),
    graph=graph_of,
    front=front_of,
    labels=LABELS,
    exporter="optimum",
    add_train_arguments=add_train_arguments,
    train=train,
    load_network=load_text_network,
    parity=Parity(
        inputs=text_parity_inputs,
        edges=text_edges,
        decide=decide_label,
        faults=distribution_faults,
        describe=describe_text,
    ),
    add_predict_arguments=add_predict_arguments,
    predict=predict,
    golden_questions=golden_questions,
    adaptation=Adaptation(add_adapt_arguments, adapt),
    quick={"epochs": 1.5},
    benchmarks={
        "log_anomaly": Benchmark(
            "systems never seen, beside a keyword rule and TF-IDF with logistic regression",
            _add_benchmark_arguments,
            _benchmark,
        )
    },
)
