"""train_failure_rca: why did this training job die? Multi-label BERT behind a text front."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import Any

from contract.manifest import Front, Graph, Tensor
from training.artifact import Artifact
from training.run import TrainRun
from training.spec import Benchmark, ModelSpec, Parity
from training.text.text_spec import (
    add_text_train_arguments,
    decide_labels,
    describe_text,
    load_text_network,
    probability_faults,
    text_edges,
    text_front,
    text_graph,
    text_parity_inputs,
)
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.predict import add_predict_arguments, predict

MAX_TOKENS = 96
PRESET = "job"
# What the front needs beside itself, in the served version's folder.
READER = ("suspicion", "reading", "signatures", "windows", "diagnosis")


def graph_of(preset: str, max_tokens: int = MAX_TOKENS) -> Graph:
    return text_graph("train_failure_rca_classifier", LABELS, max_tokens)


def front_of(preset: str) -> Front:
    front = text_front(
        "train_failure_rca",
        "training.train_failure_rca.front",
        (
            Tensor(name="probabilities", dtype="FP32", dims=(len(LABELS),), unit="probability"),
            Tensor(name="diagnosis", dtype="BYTES", dims=(1,), unit="JSON"),
            Tensor(name="manifest", dtype="BYTES", dims=(1,), unit="JSON"),
        ),
        optional_inputs=(
            Tensor(name="threshold", dtype="FP32", dims=(1,), unit="probability", optional=True),
        ),
        # One log is up to 64 windows: a few of them are a batch.
        max_batch_size=16,
        # A log takes a third of a second: more of them would wait for longer than 10 s.
        max_queue_size=32,
    )
    return front.model_copy(
        update={"modules": (*front.modules, *(f"training.train_failure_rca.{m}" for m in READER))}
    )


def add_train_arguments(parser: ArgumentParser) -> None:
    add_text_train_arguments(
        parser, epochs=1.0, draws=14_400, max_tokens=MAX_TOKENS, learning_rate=2e-4
    )
    parser.add_argument("--logs", type=int, default=2400, help="logs composed to learn from")
    parser.add_argument(
        "--learn-all",
        action="store_true",
        help="learn the families that would judge, too: for the model that ships",
    )


def train(run: TrainRun) -> Artifact:
    from training.train_failure_rca.train import train_rca

    return train_rca(run)


def golden_questions(artifact: Artifact) -> Iterable[Any]:
    return artifact.golden_questions()


def _add_benchmark_arguments(parser: ArgumentParser) -> None:
    from training.train_failure_rca.benchmark.table import add_arguments

    add_arguments(parser)


def _benchmark(arguments: Namespace) -> str:
    from training.train_failure_rca.benchmark.table import run

    return run(arguments)


SPEC = ModelSpec(
    name="train_failure_rca",
    question="Why did this training job die?",
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
        decide=decide_labels,
        faults=probability_faults,
        describe=describe_text,
    ),
    add_predict_arguments=add_predict_arguments,
    predict=predict,
    golden_questions=golden_questions,
    benchmarks={
        "train_failure_rca": Benchmark(
            "causes of unseen failures, real and composed: rules, TF-IDF, this model",
            _add_benchmark_arguments,
            _benchmark,
        )
    },
    quick={"logs": 240, "draws": 1_920, "learning_rate": 3e-4},
)
