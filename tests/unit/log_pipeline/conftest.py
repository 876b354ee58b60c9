"""The served masking rules without a server, and one that answers by the masked text alone."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers

from clients import LogVerdict
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.masking import Masker
from training.text.masking import LOG_MASKS, add_masking, wrap


@pytest.fixture(scope="session")
def steps() -> list[dict[str, Any]]:
    """A manifest's ``masking``: from the one place where the rules are written."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    tokenizer = wrap(backend, 64)
    add_masking(tokenizer, LOG_MASKS)
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    masking: list[dict[str, Any]] = document["normalizer"]["normalizers"][:-1]
    return masking


@pytest.fixture(scope="session")
def masker(steps: list[dict[str, Any]]) -> Masker:
    return Masker(steps)


class Answerer:
    """A server whose score is a checksum of the masked text; keeps what it was asked."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.steps = steps
        self.version = "1"
        self.threshold = 0.5
        self.asked: list[bytes] = []
        self._masker = Masker(steps)

    def describe(self) -> dict[str, Any]:
        return {
            "model_version": self.version,
            "run_id": f"run {self.version}",
            "thresholds": {"anomaly": self.threshold},
            "masking": self.steps,
        }

    def classify(self, texts: Any, *, on_error: str = "raise") -> list[LogVerdict]:
        self.asked += texts
        return [self.verdict(text) for text in texts]

    def verdict(self, text: bytes) -> LogVerdict:
        assert text.decode("utf-8", "replace").replace("\0", " ").strip(), "asked a blank line"
        seen = self._masker.mask_one(text) + self.version
        score = zlib.crc32(seen.encode()) % 10_000 / 10_000
        label = "anomaly" if score >= self.threshold else "normal"
        return LogVerdict(label, score, self.threshold, model_version=self.version)


@pytest.fixture
def answerer(steps: list[dict[str, Any]]) -> Answerer:
    return Answerer(steps)


@pytest.fixture
def classifier(answerer: Answerer) -> LineClassifier:
    return LineClassifier(answerer)
