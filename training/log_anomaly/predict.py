"""Verdicts without a server, through the same front as the served model."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from contract.errors import DataFileError
from training.artifact import Artifact
from training.log_anomaly.front import Front

_LINES_AT_ONCE = 512


def add_predict_arguments(parser: ArgumentParser) -> None:
    # "+", not "*": argparse would match "*" with nothing before the first option.
    parser.add_argument("files", nargs="+", help="log files; - reads stdin")
    parser.add_argument("--anomalies-only", action="store_true", help="leave normal lines out")


def predict(artifact: Artifact, arguments: Namespace) -> Iterator[Mapping[str, Any]]:
    """One record per line that is not blank: file, line, label, score, text.

    Raises:
        DataFileError: a file that cannot be read.
    """
    from training.text.network import load_classifier
    from training.text.trainer import eager_classify

    front = Front(artifact.path, eager_classify(load_classifier(artifact)))
    for name in arguments.files:
        lines = _lines(name)
        while block := list(islice(lines, _LINES_AT_ONCE)):
            column = np.array([[text] for _, text in block], dtype=object)
            (answer,) = front.answer([{"text": column}], frozenset({"label", "score"}))
            if isinstance(answer, Exception):
                raise answer
            for (number, text), label, score in zip(
                block, answer["label"][:, 0], answer["score"][:, 0], strict=True
            ):
                if arguments.anomalies_only and label.decode() == artifact.manifest.labels[0]:
                    continue
                yield {
                    "file": name,
                    "line": number,
                    "label": label.decode(),
                    "score": round(float(score), 4),
                    "text": text.decode("utf-8", errors="replace"),
                }


def _lines(name: str) -> Iterator[tuple[int, bytes]]:
    if name == "-":
        yield from _numbered(sys.stdin.buffer)
        return
    try:
        with Path(name).open("rb") as file:
            yield from _numbered(file)
    except OSError as error:
        raise DataFileError(
            "log file cannot be read", where=name, expected="a text file", got=str(error.strerror)
        ) from error


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(file, start=1):
        text = line.rstrip(b"\r\n")
        if text.replace(b"\0", b" ").strip():
            yield number, text
