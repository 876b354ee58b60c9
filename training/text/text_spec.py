"""What the specs of the text models share: tensors, golden rows, parity rows, decisions."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from contract.manifest import MAX_QUEUE_SIZE, Front, Graph, Manifest, Tensor, Tolerance
from training.artifact import Artifact
from training.spec import Arrays, Decisions, Padding
from training.text.text_batch import MaskedTokenizer

if TYPE_CHECKING:
    import torch

PADDED_SHARE: dict[Padding, float] = {"none": 0.0, "half": 0.5, "most": 0.9}
_ROUNDING = 1e-6
_SUM_ROUNDING = 2e-3  # fp16 has three digits
FRONT_MODULES = ("training.text.text_batch",)


def text_graph(
    triton_name: str, labels: Sequence[str], max_tokens: int, *, max_batch_size: int = 32
) -> Graph:
    """The classifier's graph: token ids → calibrated probabilities."""
    return Graph(
        triton_name=triton_name,
        inputs=(
            Tensor(name="input_ids", dtype="INT64", dims=(-1,), unit="token"),
            Tensor(name="attention_mask", dtype="INT64", dims=(-1,), unit="1 = token, 0 = padding"),
        ),
        outputs=(
            Tensor(name="probabilities", dtype="FP32", dims=(len(labels),), unit="probability"),
        ),
        max_batch_size=max_batch_size,
        max_length=max_tokens,
        tolerances={"probabilities": Tolerance(maximum=1e-4, percentile_99_9=2e-5)},
        # Decisions, not digits, bound a reduced precision; this stops what is broken outright.
        # A scale per tensor (int8) depends on all rows of a batch: hence its invariance.
        reduced_tolerances={
            "probabilities": Tolerance(maximum=0.1, percentile_99_9=0.05, invariance=0.05)
        },
        parameters={"labels": ",".join(labels)},
    )


def text_front(
    triton_name: str,
    module: str,
    outputs: tuple[Tensor, ...],
    *,
    optional_inputs: tuple[Tensor, ...] = (),
    max_batch_size: int = 256,
    max_queue_size: int = MAX_QUEUE_SIZE,
) -> Front:
    """The front that reads ``text`` (and ``optional_inputs``) and answers ``outputs``."""
    return Front(
        triton_name=triton_name,
        inputs=(Tensor(name="text", dtype="BYTES", dims=(1,), unit="UTF-8"), *optional_inputs),
        outputs=outputs,
        max_batch_size=max_batch_size,
        max_queue_size=max_queue_size,
        module=module,
        modules=FRONT_MODULES,
        files=("tokenizer.json",),
    )


def golden_rows(tokenizer: MaskedTokenizer, texts: Sequence[str]) -> Arrays:
    """Token ids of real texts, padded to ``max_tokens``: int64 (rows, max_tokens) each.

    Repeats are dropped; a last row holds one token alone, the shortest there can be.
    """
    masked = list(dict.fromkeys(tokenizer.mask(text) for text in texts))
    rows = tokenizer.encode(masked)
    rows.append(rows[0][:1])
    input_ids, attention_mask = tokenizer.pad(rows, tokenizer.max_tokens)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def text_parity_inputs(artifact: Artifact, batch: int, length: int, padding: Padding) -> Arrays:
    """Rows of exactly ``length`` positions from the golden rows; ``padding`` of each is padding.

    A golden row that is too short goes on with the words of the next; one that is too long is
    cut, its last token kept, as the tokenizer's own truncation does.
    """
    golden = artifact.golden()
    ids, mask = golden["input_ids"], golden["attention_mask"].astype(bool)
    rows = [row[keep] for row, keep in zip(ids, mask, strict=True) if keep.sum() > 2]
    real = max(1, length - round(length * PADDED_SHARE[padding]))
    first = int(np.random.default_rng([batch, length, real]).integers(len(rows)))
    input_ids = np.zeros((batch, length), dtype=np.int64)
    attention_mask = np.zeros((batch, length), dtype=np.int64)
    for index in range(batch):
        input_ids[index, :real] = _row_of(rows, first + index, real)
        attention_mask[index, :real] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _row_of(rows: list[np.ndarray], start: int, length: int) -> np.ndarray:
    first = rows[start % len(rows)]
    opening, closing = first[:1], first[-1:]
    if length == 1:
        return opening
    words = [first[1:-1]]
    following = start
    while sum(map(len, words)) < length - 2:
        following += 1
        words.append(rows[following % len(rows)][1:-1])
    return np.concatenate([opening, np.concatenate(words)[: length - 2], closing])


def decide_label(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> Decisions:
    """One of two labels: is P(last label) at or above its threshold? values (rows, 1)."""
    score = outputs["probabilities"][:, -1:].astype(np.float64)
    margins = score - manifest.thresholds[manifest.labels[-1]]
    return Decisions((margins >= 0).astype(np.int64), np.abs(margins))


def decide_labels(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> Decisions:
    """Each label for itself, at or above its threshold: values (rows, labels)."""
    thresholds = np.array([manifest.thresholds[label] for label in manifest.labels])
    margins = outputs["probabilities"].astype(np.float64) - thresholds
    return Decisions((margins >= 0).astype(np.int64), np.abs(margins))


_EDGE_TEXTS = {
    "empty": "",
    "one token": "error",
    "Chinese": "训练进程退出：显存不足，节点掉卡",
    "unknown characters": "\u2603 \U0001f525 \u0800",
    "truncated": "NCCL watchdog timeout on rank and the line goes on " * 60,
    "control tokens spelt out": "[CLS] [SEP] [PAD] [MASK] <num>",
}


def text_edges(artifact: Artifact) -> dict[str, Arrays]:
    """Each edge text alone, then all of them in one batch, padded to the longest."""
    tokenizer = MaskedTokenizer(
        artifact.path / "tokenizer.json", max_tokens=artifact.manifest.graph.max_length
    )
    rows = tokenizer.encode([tokenizer.mask(text) for text in _EDGE_TEXTS.values()])
    batches = {name: [row] for name, row in zip(_EDGE_TEXTS, rows, strict=True)}
    batches["all edges together"] = rows
    return {
        name: dict(zip(("input_ids", "attention_mask"), tokenizer.pad(batch), strict=True))
        for name, batch in batches.items()
    }


def describe_text(artifact: Artifact, inputs: Arrays, row: int) -> str:
    """The row's tokens as text, its padding left out."""
    keep = inputs["attention_mask"][row].astype(bool)
    backend = Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
    text: str = backend.decode(inputs["input_ids"][row][keep].tolist(), skip_special_tokens=False)
    return text


def probability_faults(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> list[str]:
    """Probabilities lie in [0, 1]."""
    values = outputs["probabilities"]
    outside = int(((values < -_ROUNDING) | (values > 1 + _ROUNDING)).any(axis=1).sum())
    return [f"probabilities outside [0, 1] in {outside} rows"] if outside else []


def distribution_faults(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> list[str]:
    """Probabilities of one label out of several lie in [0, 1] and sum to 1."""
    faults = probability_faults(manifest, inputs, outputs)
    off = np.abs(outputs["probabilities"].astype(np.float64).sum(axis=1) - 1) > _SUM_ROUNDING
    if off.any():
        faults.append(f"probabilities do not sum to 1 in {int(off.sum())} rows")
    return faults


def add_text_train_arguments(
    parser: ArgumentParser, *, epochs: float, draws: int, max_tokens: int, learning_rate: float
) -> None:
    """The flags of every text model, with the model's own defaults."""
    parser.add_argument(
        "--encoder", default="minilm", help="local folder, hub name, or minilm (default)"
    )
    parser.add_argument("--epochs", type=float, default=epochs)
    parser.add_argument("--draws", type=int, default=draws, help="examples drawn per epoch")
    parser.add_argument("--max-tokens", type=int, default=max_tokens)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--gradient-accumulation", type=int, default=1)


def load_text_network(artifact: Artifact) -> torch.nn.Module:
    """The served classifier of a run; torch is imported only here."""
    from training.text.network import load_classifier

    return load_classifier(artifact)
