"""Raw texts to probabilities, in as few classifier rows as possible.

The same file runs in training and, copied, inside tritonserver: numpy, tokenizers, stdlib only.
What a text becomes is written once, in ``tokenizer.json``: its normalizers but the last mask the
variable parts, the last one folds case. The model only ever sees what they leave, so a cache
keyed by the masked text answers exactly as the model would.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

Chunk = tuple[np.ndarray, np.ndarray]
"""input_ids, attention_mask: int64 (rows, length)."""

Classify = Callable[[list[Chunk]], list[np.ndarray]]
"""Chunks → probabilities float32 (rows, labels) of each; a list, so that a server may run several
at once."""

MAXIMUM_CHARACTERS = 16_384
"""Of one text: far beyond what the tokens of one row can hold, and keeps 1 MB lines cheap."""

CHUNK_TOKENS, CHUNK_ROWS = 256, 32
"""Of one classifier call, padding included: larger ones are no faster a token on a CPU, and leave
less to share among instances. Rows: no classifier of ours takes more."""


class FrontError(Exception):
    """One request is bad; the message is for the user."""


class MaskedTokenizer:
    """The two halves of one ``tokenizer.json``: text → masked text → token ids.

    Raises:
        ValueError: the file has no masking, or cannot be read.
    """

    def __init__(self, tokenizer_file: Path, *, max_tokens: int) -> None:
        document = json.loads(Path(tokenizer_file).read_text(encoding="utf-8"))
        steps = (document.get("normalizer") or {}).get("normalizers") or []
        if not any(step.get("type") == "Replace" for step in steps[:-1]):
            raise ValueError(f"{tokenizer_file} masks nothing: no Replace among its normalizers")
        self.max_tokens = max_tokens
        self._masker = _with_steps(document, steps[:-1]).normalizer
        self._encoder = _with_steps(document, steps[-1:])
        # Text that spells [SEP] or [MASK] is text, not a control token.
        self._encoder.encode_special_tokens = True
        self._encoder.no_padding()
        self._encoder.enable_truncation(max_length=max_tokens)
        self.padding_id: int = self._encoder.token_to_id("[PAD]") or 0

    def mask(self, text: str) -> str:
        """The text with its variable parts masked, before case is folded."""
        masked: str = self._masker.normalize_str(text[:MAXIMUM_CHARACTERS].replace("\0", " "))
        return masked

    def encode(self, masked: Sequence[str]) -> list[list[int]]:
        """Token ids of masked texts, special tokens included, at most ``max_tokens`` each."""
        return [encoding.ids for encoding in self._encoder.encode_batch_fast(list(masked))]

    def pad(self, rows: Sequence[Sequence[int]], length: int | None = None) -> Chunk:
        """Token ids to one chunk, padded to ``length`` (default: the longest row)."""
        width = max(map(len, rows)) if length is None else length
        input_ids = np.full((len(rows), width), self.padding_id, dtype=np.int64)
        attention_mask = np.zeros((len(rows), width), dtype=np.int64)
        for index, ids in enumerate(rows):
            input_ids[index, : len(ids)] = ids
            attention_mask[index, : len(ids)] = 1
        return input_ids, attention_mask


class TextBatcher:
    """Masks, drops repeats, asks the cache, and classifies the rest in chunks of like length.

    Safe to call from several threads. ``rows`` counts texts; ``hits`` and ``misses`` count
    distinct masked texts per call, so the rest of the rows were repeats within their call.
    ``real_tokens`` / ``sent_tokens`` is how full the chunks were; ``seconds`` is what masking,
    tokenizing (padding included) and the classifier took, as seen from here.

    A chunk holds as many rows as fit into ``chunk_tokens`` with their padding, at most
    ``chunk_rows``; a small call is cut in two, so that a second instance has work. ``cache_size``
    of 0: nothing is remembered between calls.

    The cache holds probabilities, never decisions, and lives as long as its version does: another
    version, or the same one with another threshold, is a new batcher with an empty cache.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        classify: Classify,
        *,
        max_tokens: int,
        chunk_tokens: int = CHUNK_TOKENS,
        chunk_rows: int = CHUNK_ROWS,
        cache_size: int = 50_000,
    ) -> None:
        self.tokenizer = MaskedTokenizer(tokenizer_file, max_tokens=max_tokens)
        self._classify = classify
        self.chunk_tokens = chunk_tokens
        self.chunk_rows = chunk_rows
        self.cache_size = cache_size
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.rows = 0
        self.hits = 0
        self.misses = 0
        self.real_tokens = 0
        self.sent_tokens = 0
        self.seconds = {"mask": 0.0, "tokenize": 0.0, "classify": 0.0}

    @property
    def cache_entries(self) -> int:
        """Distinct masked texts in the cache, at most ``cache_size``."""
        return len(self._cache)

    @property
    def padding_waste(self) -> float:
        """Share of the tokens sent to the classifier that were padding."""
        return 1 - self.real_tokens / self.sent_tokens if self.sent_tokens else 0.0

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), labels); one classifier row per masked text not seen before."""
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        mask = self.tokenizer.mask
        begun = time.perf_counter()
        masked_of = {text: mask(text) for text in dict.fromkeys(texts)}
        self._spend(mask=time.perf_counter() - begun)
        found, missing = self._look_up(list(dict.fromkeys(masked_of.values())), len(texts))
        if missing:
            fresh = self._compute(missing)
            self._store(fresh)
            found.update(fresh)
        return np.stack([found[masked_of[text]] for text in texts])

    def _look_up(self, masked: list[str], rows: int) -> tuple[dict[str, np.ndarray], list[str]]:
        found: dict[str, np.ndarray] = {}
        missing: list[str] = []
        with self._lock:
            for text in masked:
                row = self._cache.get(text)
                if row is None:
                    missing.append(text)
                else:
                    self._cache.move_to_end(text)
                    found[text] = row
            self.rows += rows
            self.hits += len(found)
            self.misses += len(missing)
        return found, missing

    def _store(self, fresh: dict[str, np.ndarray]) -> None:
        with self._lock:
            self._cache.update(fresh)
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)

    def _compute(self, masked: list[str]) -> dict[str, np.ndarray]:
        begun = time.perf_counter()
        encoded = self.tokenizer.encode(masked)
        groups = chunk_groups(
            [len(ids) for ids in encoded], tokens=self.chunk_tokens, rows=self.chunk_rows
        )
        chunks = [self.tokenizer.pad([encoded[index] for index in group]) for group in groups]
        ready = time.perf_counter()
        answers = self._classify(chunks)
        if [len(answer) for answer in answers] != [len(group) for group in groups]:
            raise RuntimeError("the classifier answered another number of rows than it was asked")
        self._spend(tokenize=ready - begun, classify=time.perf_counter() - ready)
        with self._lock:
            self.sent_tokens += sum(ids.size for ids, _ in chunks)
            self.real_tokens += sum(map(len, encoded))
        return {
            masked[index]: np.array(row, dtype=np.float32)
            for group, answer in zip(groups, answers, strict=True)
            for index, row in zip(group, answer, strict=True)
        }

    def _spend(self, **seconds: float) -> None:
        with self._lock:
            for step, taken in seconds.items():
                self.seconds[step] += taken


def chunk_groups(lengths: Sequence[int], *, tokens: int, rows: int) -> list[list[int]]:
    """Indexes of rows of these lengths, the shortest first, in chunks of at most ``rows`` rows and
    ``tokens`` padded tokens (one row at least). Few rows make two chunks, not one."""
    half = (sum(lengths) + max(lengths, default=0)) // 2
    budget = max(tokens // 4, min(tokens, half))
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Sorted: the row to come is the longest of its chunk.
        full = groups and (
            len(groups[-1]) == rows or (len(groups[-1]) + 1) * lengths[index] > budget
        )
        if full or not groups:
            groups.append([])
        groups[-1].append(index)
    return groups


def read_texts(column: np.ndarray, *, blank_allowed: bool = False) -> list[str]:
    """Texts of one request: object array of bytes (rows, 1) → strings.

    Bytes that are not UTF-8 are replaced, NULs are spaces. Raises FrontError: a blank text, unless
    ``blank_allowed``.
    """
    texts = []
    for row, value in enumerate(np.asarray(column, dtype=object).reshape(-1)):
        text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
        text = text.replace("\0", " ")
        if not blank_allowed and not text.strip():
            raise FrontError(f"text at row {row}: expected some text, got an empty one")
        texts.append(text)
    if not texts:
        raise FrontError("text: expected at least one row, got none")
    return texts


def public_manifest(folder: Path) -> bytes:
    """The version's manifest as compact JSON, without the list of files: for clients.

    ``masking`` holds the normalizers of ``tokenizer.json`` that mask, so that a client which asks
    once per masked text need not know a pattern of its own.
    """
    document = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in document.items() if key not in ("files", "data")}
    tokenizer = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    kept["masking"] = tokenizer["normalizer"]["normalizers"][:-1]
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def bytes_column(values: Sequence[bytes]) -> np.ndarray:
    """A BYTES output: object array (rows, 1)."""
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = list(values)
    return column


def _with_steps(document: dict[str, object], steps: list[object]) -> Tokenizer:
    normalizer = {"type": "Sequence", "normalizers": steps}
    return Tokenizer.from_str(json.dumps({**document, "normalizer": normalizer}))
