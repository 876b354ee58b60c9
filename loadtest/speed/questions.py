"""What ``compare`` asks: real inputs of one request each, and the issue's targets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contract.errors import ArtifactMissingError
from export.target import TARGETS
from loadtest.log_mix import job_logs, new_logs, read_mix, restarted_logs
from loadtest.served import Arrays, ServedModel, served_models, text_of
from loadtest.speed.bert_base import BertBasePlaces

BERT_TARGETS = tuple(target.name for target in TARGETS.values() if not target.on_gpu)
JOB_LOG_LINES = 200


@dataclass(frozen=True)
class CompareSettings:
    """only: questions to ask, by name; none: all. seconds: of one side in one round."""

    repository: Path = Path("model_repository")
    artifacts: Path = Path("artifacts")
    logs: Path = Path("data/logs")
    bert: BertBasePlaces = field(default_factory=BertBasePlaces)
    rounds: int = 5
    seconds: float = 1.5
    only: tuple[str, ...] = ()
    compiled: bool = True

    def repository_of(self, target: str) -> Path:
        return self.repository if target == "cpu" else TARGETS[target].repository


@dataclass(frozen=True)
class Question:
    """requests: {caches: () → endless inputs of one request}; outputs: what is asked for."""

    name: str
    title: str
    model: str
    concurrency: int
    unit: str
    targets: dict[str, float]
    requests: dict[str, Callable[[], Iterator[Arrays]]]
    outputs: tuple[str, ...]
    note: str = ""
    bert: bool = False
    # Lines that a service has read before the first that is timed.
    primer: Sequence[bytes] | None = None


def questions(settings: CompareSettings) -> Iterator[tuple[Question, ServedModel]]:
    """Those of which the model is published, in the order of the table."""
    served = _served(settings.repository, settings.artifacts)
    if "log_anomaly" in served:
        yield _lines(served["log_anomaly"], settings), served["log_anomaly"]
    if "train_failure_rca" in served:
        yield _job_logs(served["train_failure_rca"]), served["train_failure_rca"]
    for target in BERT_TARGETS:
        bert = _served(settings.bert.repository(target), settings.bert.artifacts)
        if "log_anomaly" in bert:
            yield _lines(bert["log_anomaly"], settings, bert=True), bert["log_anomaly"]
            break
    for model in served.values():
        if not model.reads_text:
            yield _forecasts(model), model


def _served(repository: Path, artifacts: Path) -> dict[str, ServedModel]:
    try:
        return {model.name: model for model in served_models(repository, artifacts)}
    except ArtifactMissingError:
        return {}


def _lines(model: ServedModel, settings: CompareSettings, *, bert: bool = False) -> Question:
    from training.text.text_batch import MaskedTokenizer

    manifest = model.manifest
    tokenizer = MaskedTokenizer(
        model.artifact.path / "tokenizer.json", max_tokens=int(manifest.settings["max_tokens"])
    )
    golden = [text_of(question) for question in model.questions]
    mix = read_mix(settings.logs, tokenizer, golden)
    seeds = itertools.count(1)

    def real() -> Iterator[Arrays]:
        return (_text(line) for line in mix.real(next(seeds)))

    def seen() -> Iterator[Arrays]:
        return (_text(line) for line in mix.seen())

    if bert:
        return Question(
            "bert",
            "BERT-base-size classifier, log lines, one a request",
            model.name,
            32,
            "lines/s",
            {"off": 6.0},
            {"off": real},
            ("label", "score"),
            f"{mix}. A speed row: random weights of bert-base's shape, trained for a moment.",
            bert=True,
        )
    return Question(
        "lines",
        "log lines, one a request, MiniLM",
        model.name,
        64,
        "lines/s",
        {"off": 10.0, "on": 100.0},
        {"off": real, "on": real, "on, all seen": seen},
        ("label", "score"),
        f"{mix}. `on` keeps that share new for ever (the first line of each form gets a word of "
        "its own each time round); `on, all seen`: only lines whose form was seen.",
        primer=mix.primer,
    )


def _job_logs(model: ServedModel) -> Question:
    logs = job_logs([text_of(question) for question in model.questions], JOB_LOG_LINES)
    seeds = itertools.count(1)
    return Question(
        "rca",
        f"job logs of {JOB_LOG_LINES} lines, one a request",
        model.name,
        8,
        "logs/s",
        {"off": 5.0},
        {
            "off": lambda: (_text(log) for log in new_logs(logs, next(seeds))),
            "on": lambda: (_text(log) for log in restarted_logs(logs, next(seeds))),
        },
        ("probabilities", "diagnosis"),
        f"{len(logs)} logs; off: every line with a word of its own; on: the same jobs started "
        "again, with other numbers (the baseline reads the former).",
    )


def _forecasts(model: ServedModel) -> Question:
    rows = model.artifact.golden()
    count = len(next(iter(rows.values())))
    names = [tensor.name for tensor in model.inputs]

    def golden() -> Iterator[Arrays]:
        for index in itertools.cycle(range(count)):
            yield {name: rows[name][index : index + 1] for name in names}

    return Question(
        model.name,
        f"{model.name}, one series a request",
        model.name,
        32,
        "series/s",
        {"none": 8.0},
        {"none": golden},
        tuple(model.outputs),
    )


def _text(text: bytes) -> Arrays:
    column = np.empty((1, 1), dtype=object)
    column[0, 0] = text
    return {"text": column}
