"""From a raw log line to its verdict. It runs in tritonserver: numpy, tokenizers, stdlib only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.text.text_batch import (
    Classify,
    FrontError,
    TextBatcher,
    bytes_column,
    public_manifest,
    read_texts,
)


class Front:
    """``text`` BYTES (rows, 1) → ``label``, ``score``, ``probabilities``, ``threshold``,
    ``manifest``. A line is one of ``labels``; it is the last one at or above its threshold. A
    blank line is normal: it says nothing.
    """

    def __init__(self, folder: Path, classify: Classify) -> None:
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self._labels = [label.encode() for label in manifest["labels"]]
        self._threshold = float(manifest["thresholds"][manifest["labels"][-1]])
        self._manifest = public_manifest(folder)
        self.batcher = TextBatcher(
            folder / "tokenizer.json", classify, max_tokens=int(manifest["settings"]["max_tokens"])
        )

    def answer(
        self,
        requests: Sequence[Mapping[str, np.ndarray]],
        requested: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray] | FrontError]:
        """One entry per request; all their lines are classified together.

        ``requested``: output names to compute (empty = all).
        """
        texts: list[str] = []
        spans: list[slice | FrontError] = []
        for request in requests:
            try:
                own = read_texts(request["text"], blank_allowed=True)
            except FrontError as error:
                spans.append(error)
                continue
            spans.append(slice(len(texts), len(texts) + len(own)))
            texts += own
        probabilities = self.batcher.probabilities(texts)
        for row, text in enumerate(texts):
            if not text.strip():
                probabilities[row] = np.eye(len(self._labels), dtype=np.float32)[0]
        # Of all requests at once: their slices are views, an array of its own costs each one more
        # than its answer.
        outputs = self._outputs(probabilities, requested)
        return [
            span
            if isinstance(span, FrontError)
            else {name: column[span] for name, column in outputs.items()}
            for span in spans
        ]

    def _outputs(
        self, probabilities: np.ndarray, requested: frozenset[str]
    ) -> dict[str, np.ndarray]:
        rows = len(probabilities)
        score = probabilities[:, -1:]
        makers: dict[str, Callable[[], np.ndarray]] = {
            "label": lambda: bytes_column(
                [self._labels[-1 if high else 0] for high in score[:, 0] >= self._threshold]
            ),
            "score": lambda: np.ascontiguousarray(score, dtype=np.float32),
            "probabilities": lambda: probabilities,
            "threshold": lambda: np.full((rows, 1), self._threshold, dtype=np.float32),
            "manifest": lambda: bytes_column([self._manifest] * rows),
        }
        return {name: make() for name, make in makers.items() if not requested or name in requested}
