"""Diagnoses without a server, through the same front as the served model."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import DataFileError
from training.artifact import Artifact
from training.train_failure_rca.front import Front


def add_predict_arguments(parser: ArgumentParser) -> None:
    # "+", not "*": argparse would match "*" with nothing before the first option.
    parser.add_argument("files", nargs="+", help="one log a file; - reads stdin")
    parser.add_argument("--threshold", type=float, help="for all labels (default: the shipped)")


def predict(artifact: Artifact, arguments: Namespace) -> Iterator[Mapping[str, Any]]:
    """One record a log: file, causes, root, unknown, probabilities. A bad file is a record too."""
    from training.text.network import load_classifier
    from training.text.trainer import eager_classify

    front = Front(artifact.path, eager_classify(load_classifier(artifact)))
    for name in arguments.files:
        try:
            log = _read(name)
        except DataFileError as error:
            yield {"file": name, "error": str(error)}
            continue
        request = {"text": np.array([[log]], dtype=object)}
        if arguments.threshold is not None:
            request["threshold"] = np.array([[arguments.threshold]], dtype=np.float32)
        (answer,) = front.answer([request], frozenset({"diagnosis", "probabilities"}))
        if isinstance(answer, Exception):
            yield {"file": name, "error": str(answer)}
            continue
        probabilities = dict(
            zip(artifact.manifest.labels, answer["probabilities"][0].round(6).tolist(), strict=True)
        )
        yield {
            "file": name,
            **json.loads(answer["diagnosis"][0, 0]),
            "probabilities": probabilities,
        }


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise DataFileError(
            "log file cannot be read", where=name, expected="a text file", got=str(error.strerror)
        ) from error
