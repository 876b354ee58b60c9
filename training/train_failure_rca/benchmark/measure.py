"""The front's answers to labelled logs, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from training.train_failure_rca.data import JobLog
from training.train_failure_rca.front import Front


@dataclass(frozen=True)
class Answer:
    """``evidence``: {label: numbers of its lines}."""

    labels: frozenset[str]
    root: str | None
    unknown: bool
    evidence: dict[str, frozenset[int]]


def ask(front: Front, logs: Sequence[JobLog], *, progress: bool) -> list[Answer]:
    """The front's answers, one log a request, as a user asks."""
    answers = []
    for log in tqdm(logs, desc="logs", unit="log", disable=not progress):
        column = np.array([[log.text.encode()]], dtype=object)
        (outputs,) = front.answer([{"text": column}], frozenset({"diagnosis"}))
        if isinstance(outputs, Exception):
            raise outputs
        diagnosis = json.loads(outputs["diagnosis"][0, 0])
        evidence = {
            cause["label"]: frozenset(line["line_number"] for line in cause["evidence"])
            for cause in diagnosis["causes"]
        }
        answers.append(
            Answer(frozenset(evidence), diagnosis["root"], bool(diagnosis["unknown"]), evidence)
        )
    return answers


def false_causes(logs: Sequence[JobLog], guesses: Sequence[frozenset[str]]) -> tuple[int, int]:
    """(healthy logs that get a cause, healthy logs)."""
    healthy = [guess for log, guess in zip(logs, guesses, strict=True) if log.healthy]
    return sum(bool(guess) for guess in healthy), len(healthy)


def roots_first(logs: Sequence[JobLog], answers: Sequence[Answer]) -> tuple[int, int]:
    """(logs of several causes whose root is ranked first, logs of several causes)."""
    several = [
        (log, answer)
        for log, answer in zip(logs, answers, strict=True)
        if len(log.labels) > 1 and log.roots
    ]
    return sum(answer.root in log.roots for log, answer in several), len(several)


def roots_above_cascade(logs: Sequence[JobLog], answers: Sequence[Answer]) -> tuple[int, int]:
    """As ``roots_first``, of those logs only where the answer names a root's label at all."""
    pairs = [
        (log, answer)
        for log, answer in zip(logs, answers, strict=True)
        if len(log.labels) > 1 and len(answer.labels) > 1 and log.roots & answer.labels
    ]
    return sum(answer.root in log.roots for log, answer in pairs), len(pairs)


def evidence_hits(logs: Sequence[JobLog], answers: Sequence[Answer]) -> tuple[int, int]:
    """(causes found whose evidence holds a decisive line, causes found)."""
    hits = found = 0
    for log, answer in zip(logs, answers, strict=True):
        for label in log.labels & answer.labels:
            decisive = {number for number, labels in log.decisive.items() if label in labels}
            if decisive:
                found += 1
                hits += bool(decisive & answer.evidence[label])
    return hits, found


def unknown_said(logs: Sequence[JobLog], answers: Sequence[Answer]) -> tuple[int, int]:
    """(failures that fit no label and are answered so, failures that fit no label)."""
    unknown = [a for log, a in zip(logs, answers, strict=True) if log.failed and not log.labels]
    return sum(answer.unknown for answer in unknown), len(unknown)


def reading_covers(logs: Sequence[JobLog], windows: Sequence[set[int]]) -> tuple[int, int]:
    """(causes with a decisive line in some window, causes); ``windows``: line numbers a log."""
    covered = total = 0
    for log, numbers in zip(logs, windows, strict=True):
        for label in log.labels:
            decisive = {n for n, labels in log.decisive.items() if label in labels}
            total += bool(decisive)
            covered += bool(decisive & numbers)
    return covered, total
