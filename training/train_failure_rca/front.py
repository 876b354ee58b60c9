"""From a job's log to its causes. It runs in tritonserver: numpy, tokenizers, stdlib only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.text.text_batch import (
    Classify,
    FrontError,
    TextBatcher,
    bytes_column,
    public_manifest,
    read_texts,
)
from training.train_failure_rca.diagnosis import Reading, find_causes, read


class Front:
    """``text`` BYTES (rows, 1), optional ``threshold`` FP32 (rows, 1) → ``probabilities``,
    ``diagnosis`` (JSON), ``manifest``.
    """

    def __init__(self, folder: Path, classify: Classify) -> None:
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self._labels: list[str] = manifest["labels"]
        self._thresholds = np.array(
            [manifest["thresholds"][label] for label in self._labels], dtype=np.float32
        )
        self._actions: dict[str, dict[str, str]] = manifest["settings"]["actions"]
        self._run_id: str = manifest["run_id"]
        self._manifest = public_manifest(folder)
        self.batcher = TextBatcher(
            folder / "tokenizer.json", classify, max_tokens=int(manifest["settings"]["max_tokens"])
        )

    def answer(
        self,
        requests: Sequence[Mapping[str, np.ndarray]],
        requested: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray] | FrontError]:
        """One entry per request; the windows of all their logs are classified together.

        ``requested``: output names to compute (empty = all).
        """
        if requested == {"manifest"}:
            return [
                {"manifest": bytes_column([self._manifest] * len(request["text"]))}
                for request in requests
            ]
        readings: list[list[Reading] | FrontError] = []
        for request in requests:
            try:
                texts = read_texts(request["text"])
            except FrontError as error:
                readings.append(error)
                continue
            readings.append([read(text, self.batcher.tokenizer) for text in texts])
        good = [r for group in readings if isinstance(group, list) for r in group]
        self._classify(good)
        answers: list[dict[str, np.ndarray] | FrontError] = []
        for request, group in zip(requests, readings, strict=True):
            if isinstance(group, FrontError):
                answers.append(group)
                continue
            outputs = {"probabilities": np.stack([r.probabilities for r in group])}
            if not requested or "diagnosis" in requested:
                thresholds = self._thresholds_of(request, len(group))
                diagnoses = [self._diagnose(r, t) for r, t in zip(group, thresholds, strict=True)]
                outputs["diagnosis"] = bytes_column(diagnoses)
            if not requested or "manifest" in requested:
                outputs["manifest"] = bytes_column([self._manifest] * len(group))
            answers.append({k: v for k, v in outputs.items() if not requested or k in requested})
        return answers

    def _classify(self, readings: Sequence[Reading]) -> None:
        texts = [window.text for reading in readings for window in reading.windows]
        if not texts:
            return
        rows = self.batcher.probabilities(texts)
        start = 0
        for reading in readings:
            stop = start + len(reading.windows)
            reading.by_window = rows[start:stop]
            start = stop

    def _thresholds_of(self, request: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """float32 (rows, labels): the shipped ones, or the request's own where above 0."""
        thresholds = np.tile(self._thresholds, (rows, 1))
        if "threshold" in request:
            own = np.asarray(request["threshold"], dtype=np.float32).reshape(rows, 1)
            thresholds = np.where(own > 0, own, thresholds)
        return thresholds

    def _diagnose(self, reading: Reading, thresholds: np.ndarray) -> bytes:
        found = find_causes(reading, self._labels, thresholds, self.batcher.probabilities)
        causes: list[dict[str, Any]] = [
            {
                "label": self._labels[cause.label],
                "probability": round(cause.probability, 6),
                "evidence": [
                    {"line_number": line.number, "text": line.text} for line in cause.evidence
                ],
                "action": self._actions[self._labels[cause.label]],
            }
            for cause in found
        ]
        diagnosis = {
            "causes": causes,
            "root": causes[0]["label"] if causes else None,
            "unknown": not causes and reading.failed,
            "run_id": self._run_id,
        }
        return json.dumps(diagnosis, ensure_ascii=False, separators=(",", ":")).encode()
