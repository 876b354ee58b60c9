"""From a job's log to its causes. It runs in tritonserver: numpy, tokenizers, stdlib only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from training.train_failure_rca.windows import LogLine, Window, says_it_failed, windows_of

_EVIDENCE_LINES = 3
_EVIDENCE_WINDOWS = 3
# A line proves a cause when, alone, it is at least this share as likely as the best line.
_EVIDENCE_SHARE = 0.5


@dataclass
class _Reading:
    """One log on its way through the front."""

    text: str
    windows: list[Window]
    by_window: np.ndarray | None = None  # float32 (windows, labels)

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (labels,): a cause is as likely as in the window that shows it best."""
        assert self.by_window is not None
        return self.by_window.max(axis=0)


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
        readings: list[list[_Reading] | FrontError] = []
        for request in requests:
            try:
                texts = read_texts(request["text"])
            except FrontError as error:
                readings.append(error)
                continue
            readings.append([_Reading(t, windows_of(t, self.batcher.tokenizer)) for t in texts])
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

    def _classify(self, readings: Sequence[_Reading]) -> None:
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

    def _diagnose(self, reading: _Reading, thresholds: np.ndarray) -> bytes:
        probabilities = reading.probabilities
        found = []
        for index in np.flatnonzero(probabilities >= thresholds):
            evidence = self._evidence(reading, int(index))
            found.append((evidence[0].number, -float(probabilities[index]), int(index), evidence))
        # The root is the earliest cause, not the loudest line.
        found.sort(key=lambda cause: cause[:3])
        causes: list[dict[str, Any]] = [
            {
                "label": self._labels[index],
                "probability": round(-minus, 6),
                "evidence": [{"line_number": line.number, "text": line.text} for line in evidence],
                "action": self._actions[self._labels[index]],
            }
            for _, minus, index, evidence in found
        ]
        diagnosis = {
            "causes": causes,
            "root": causes[0]["label"] if causes else None,
            "unknown": not causes and says_it_failed(reading.text),
            "run_id": self._run_id,
        }
        return json.dumps(diagnosis, ensure_ascii=False, separators=(",", ":")).encode()

    def _evidence(self, reading: _Reading, label: int) -> list[LogLine]:
        """The lines that prove a label, in order: the likeliest ones when classified alone."""
        assert reading.by_window is not None
        best = np.argsort(-reading.by_window[:, label], kind="stable")[:_EVIDENCE_WINDOWS]
        floor = 0.8 * reading.by_window[best[0], label]
        lines = {
            line.number: line
            for index in best
            if reading.by_window[index, label] >= floor
            for line in reading.windows[index].lines
        }
        candidates = [lines[number] for number in sorted(lines)]
        alone = self.batcher.probabilities([line.text for line in candidates])[:, label]
        proving = [
            i
            for i in np.argsort(-alone, kind="stable")
            if alone[i] >= _EVIDENCE_SHARE * alone.max()
        ]
        return [candidates[i] for i in sorted(proving[:_EVIDENCE_LINES])]
