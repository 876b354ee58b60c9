"""Texts to calls: checks, bytes, batches bounded by rows and by size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from clients._transport import Answer, Call
from clients.results import Array
from contract.errors import ServerAnswerError, TextError

LARGEST_BATCH_BYTES = 8 << 20
"""Of texts in one request: far below gRPC's limits, and small enough to pipeline."""
MANIFEST_OUTPUT = "manifest"


def check_texts(
    texts: Any, on_error: str, *, blank_allowed: bool = False
) -> tuple[list[bytes], dict[int, str]]:
    """UTF-8 bytes of every text, and why some are skipped (``on_error="skip"``).

    Raises:
        TextError: not a list of texts, or with ``on_error="raise"`` the first bad one.
    """
    if on_error not in {"raise", "skip"}:
        raise TextError("unknown on_error", expected="raise or skip", got=repr(on_error))
    if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__"):
        raise TextError(
            "not a list of texts",
            expected="list[str]",
            got=type(texts).__name__,
            next_command="wrap a single text: [text]",
        )
    encoded: list[bytes] = []
    errors: dict[int, str] = {}
    for index, text in enumerate(texts):
        try:
            encoded.append(_encode(text, index, blank_allowed))
        except TextError as error:
            if on_error == "raise":
                raise
            errors[index] = str(error)
            encoded.append(b"")
    return encoded, errors


def _encode(text: Any, index: int, blank_allowed: bool) -> bytes:
    where = f"text {index}"
    if isinstance(text, str):
        # A lone surrogate (a log read with surrogateescape) must not lose the line.
        raw = text.encode("utf-8", "replace")
    elif isinstance(text, (bytes, bytearray)):
        raw = bytes(text)
    else:
        raise TextError("not a text", where=where, expected="str or bytes", got=repr(text)[:80])
    # As the server sees it: U+3000 is blank too, and one blank row costs the whole batch.
    blank = not raw.decode("utf-8", "replace").replace("\0", " ").strip()
    if blank and not blank_allowed:
        raise TextError("empty text", where=where, expected="at least one character")
    return raw


def plan_texts(
    model: str,
    texts: Sequence[bytes],
    skip: dict[int, str],
    outputs: Sequence[str],
    *,
    max_batch_size: int,
    threshold: float | None = None,
) -> list[Call]:
    """Calls of at most ``max_batch_size`` texts and LARGEST_BATCH_BYTES, in order."""
    calls: list[Call] = []
    batch: list[bytes] = []
    size = 0
    for index, text in enumerate(texts):
        if index in skip:
            continue
        if batch and (len(batch) == max_batch_size or size + len(text) > LARGEST_BATCH_BYTES):
            calls.append(_call(model, batch, outputs, threshold))
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        calls.append(_call(model, batch, outputs, threshold))
    return calls


def _call(
    model: str, batch: Sequence[bytes], outputs: Sequence[str], threshold: float | None
) -> Call:
    inputs: dict[str, Array] = {"text": np.array(batch, dtype=object).reshape(-1, 1)}
    if threshold is not None:
        inputs["threshold"] = np.full((len(batch), 1), threshold, dtype=np.float32)
    return Call(model, inputs, outputs)


def rows_of(answers: Sequence[Answer], name: str, expected: int) -> Array:
    """One output of all answers, joined. Raises ServerAnswerError when rows are missing."""
    rows: Array = (
        np.concatenate([answer.outputs[name] for answer in answers]) if answers else np.empty(0)
    )
    if len(rows) != expected:
        raise ServerAnswerError(
            "answers are missing", expected=f"{expected} rows of {name}", got=str(len(rows))
        )
    return rows


def manifest_call(model: str) -> Call:
    """Asks a text front for its manifest: labels, thresholds, settings, quality."""
    return _call(model, [b"manifest"], [MANIFEST_OUTPUT], None)


def read_manifest_answer(model: str, answer: Answer) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(answer.outputs[MANIFEST_OUTPUT].reshape(-1)[0])
    except (ValueError, IndexError) as error:
        raise ServerAnswerError(f"{model}: no readable manifest", got=str(error)) from error
    manifest["model_version"] = answer.model_version
    return manifest


def batch_size_of(config: dict[str, Any]) -> int:
    return max(1, int(config.get("max_batch_size", 0)))
