"""The published models as their users call them, with real inputs to send."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import ArtifactMissingError, ServerUnavailableError
from contract.manifest import MANIFEST_FILE, Manifest, Tensor, read_manifest
from training.artifact import Artifact

PARITY_REPORT_FILE = "parity_report.json"
# Words of these letters are masked by no pattern (no digits, no hex digits).
_LETTERS = "ghijklmnopqrstuvwxyz"
_TIMEOUT_SECONDS = 10.0

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ServedModel:
    """One published version, named as clients name it: its front where it has one.

    inputs: tensors a request must hold. questions: the run's golden ones, as a user would ask.
    """

    name: str
    version: int
    folder: Path
    artifact: Artifact
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    questions: list[Any]

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def reads_text(self) -> bool:
        return self.inputs[0].dtype == "BYTES"

    def parity_report(self) -> dict[str, Any] | None:
        """The verdict this version was published with; its classifier's, if it is a front."""
        path = self.folder / PARITY_REPORT_FILE
        if not path.is_file():
            return None
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report


def served_models(repository: Path, artifacts: Path) -> list[ServedModel]:
    """Every model of a repository that has a version, with the run it was made from.

    Raises:
        ArtifactMissingError: nothing is published, or the run of a version is gone.
    """
    models = []
    for folder in sorted(repository.iterdir()) if repository.is_dir() else []:
        versions = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
        if not versions:
            continue
        version = folder / str(versions[-1])
        if not (version / MANIFEST_FILE).is_file():
            continue
        manifest = read_manifest(version, verify_files=False)
        side = manifest.front or manifest.graph
        if side.triton_name != folder.name:
            # A classifier behind its front, or a second format of the same run.
            continue
        artifact = Artifact.load(artifacts / manifest.model / manifest.run_id)
        models.append(
            ServedModel(
                name=folder.name,
                version=versions[-1],
                folder=version,
                artifact=artifact,
                inputs=tuple(tensor for tensor in side.inputs if not tensor.optional),
                # What tells a client something new: not the manifest.
                outputs=tuple(t.name for t in side.outputs if t.name != "manifest"),
                questions=artifact.golden_questions(),
            )
        )
    if not models:
        raise ArtifactMissingError(
            "no published model",
            where=str(repository),
            next_command="publish models first: python -m export all",
        )
    return models


class Questions:
    """Endless requests of one row for a model, made of its golden questions. Thread-safe.

    With ``fresh`` no text comes twice (each line gets a word of its own), so that no cache can
    answer it; series have no cache to defeat.
    """

    def __init__(self, model: ServedModel, *, fresh: bool, seed: int = 0) -> None:
        self.model = model
        self._fresh = fresh
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._rows = self._texts() if model.reads_text else self._golden()

    def __iter__(self) -> Iterator[Arrays]:
        return self

    def __next__(self) -> Arrays:
        with self._lock:
            return next(self._rows)

    def _texts(self) -> Iterator[Arrays]:
        name = self.model.inputs[0].name
        texts = [text_of(question) for question in self.model.questions]
        while True:
            for text in texts:
                asked = self._with_new_words(text) if self._fresh else text
                yield {name: np.array([[asked.encode()]], dtype=object)}

    def _with_new_words(self, text: str) -> str:
        return "\n".join(
            f"{line} {''.join(self._random.choices(_LETTERS, k=9))}" if line.strip() else line
            for line in text.split("\n")
        )

    def _golden(self) -> Iterator[Arrays]:
        rows = self.model.artifact.golden()
        count = len(next(iter(rows.values())))
        while True:
            for i in range(count):
                yield {name: array[i : i + 1] for name, array in rows.items()}


def text_of(question: Any) -> str:
    """The text of a golden question, which is a string or an object that holds one."""
    if isinstance(question, dict):
        return str(question.get("text") or question.get("log"))
    return str(question)


def ready_models(http_address: str) -> set[str]:
    """Names of the models a server has ready. Raises ServerUnavailableError."""
    connection = http.client.HTTPConnection(http_address, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("POST", "/v2/repository/index", body=b"{}")
        index = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerUnavailableError(
            "no server answers",
            where=http_address,
            got=str(error) or type(error).__name__,
            next_command="start it: python -m embedded_triton up --detach",
        ) from error
    finally:
        connection.close()
    return {entry["name"] for entry in index if entry.get("state") == "READY"}
