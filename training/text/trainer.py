"""Trains a text classifier: examples in, weights and tokenizer in the run folder out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.loop import Batch, LoopSettings, fit
from training.run import TrainRun, pick_device
from training.text.classifier import MeanPooledClassifier
from training.text.encoder import Encoder
from training.text.network import ProbabilityClassifier
from training.text.new_tokens import keep_new_tokens, let_new_tokens_learn
from training.text.text_batch import Chunk, Classify, MaskedTokenizer

# Drawn at once and sorted by length; one batch of neighbours is taken, so little is padding.
_POOL_BATCHES = 4
# Stands for zero where a logarithm is taken.
_FORBIDDEN = 1e-9


@dataclass(frozen=True)
class TextExample:
    """``target``: one number per label. One of several: 1 for each label it may be (one-hot where
    it is known). Multi-label: any mix."""

    text: str
    target: tuple[float, ...]


Sampler = Callable[[np.random.Generator, int], list[TextExample]]
"""Draws that many examples (with weights, headers, whatever the model's data does)."""


@dataclass(frozen=True)
class TextFitSettings:
    """``epochs`` × ``draws_per_epoch`` examples are drawn. ``label_weights``: in the loss, per
    label; for multi-label the weight of a label's positives.
    """

    max_tokens: int
    epochs: float
    draws_per_epoch: int
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 5e-5
    label_weights: tuple[float, ...] | None = None

    @property
    def steps(self) -> int:
        drawn = self.batch_size * self.gradient_accumulation
        return max(1, round(self.epochs * self.draws_per_epoch / drawn))


def fit_text_classifier(
    run: TrainRun, encoder: Encoder, sampler: Sampler, settings: TextFitSettings
) -> list[float]:
    """Train ``encoder.network`` in place, write it and its tokenizer to ``run.path``; losses."""
    encoder.tokenizer.model_max_length = settings.max_tokens
    encoder.tokenizer.save_pretrained(run.path)
    tokenizer = MaskedTokenizer(run.path / "tokenizer.json", max_tokens=settings.max_tokens)
    network = encoder.network
    let_new_tokens_learn(network, encoder.known_tokens)
    loop = LoopSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        gradient_accumulation=settings.gradient_accumulation,
        precision=fastest_precision(run.device),
        checkpoint_every_steps=100,
    )
    losses = fit(
        network,
        _draw_batches(sampler, tokenizer, settings.batch_size),
        _loss(network, settings.label_weights),
        loop,
        run,
        f"{run.model} {run.preset}",
    )
    keep_new_tokens(network)
    if run.rank == 0:
        network.save_pretrained(run.path)
    return losses


def fastest_precision(device_name: str) -> str:
    """bf16 where the hardware multiplies it, else fp32 (emulated bf16 is slower)."""
    device = pick_device(device_name)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


def predict_logits(
    network: MeanPooledClassifier,
    tokenizer: MaskedTokenizer,
    texts: Sequence[str],
    *,
    progress: bool = False,
    chunk_rows: int = 32,
) -> np.ndarray:
    """float32 (len(texts), labels), before temperature; the network's own device."""
    encoded = tokenizer.encode([tokenizer.mask(text) for text in texts])
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    device = next(network.parameters()).device
    network.eval()
    logits = np.zeros((len(texts), network.config.num_labels), dtype=np.float32)
    starts = range(0, len(order), chunk_rows)
    for start in tqdm(starts, desc="validation", unit="batch", disable=not progress):
        group = order[start : start + chunk_rows]
        chunk = tokenizer.pad([encoded[index] for index in group])
        input_ids, attention_mask = (torch.from_numpy(part).to(device) for part in chunk)
        with torch.no_grad():
            answer = network(input_ids=input_ids, attention_mask=attention_mask).logits
        logits[group] = answer.float().cpu().numpy()
    return logits


def calibrate_temperature(logits: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """The temperature in [0.25, 8] under which the targets are likeliest."""
    if len(logits) == 0:
        return 1.0
    scores, truth = torch.from_numpy(logits).double(), torch.from_numpy(targets).double()

    def surprise(temperature: float) -> float:
        if multi_label:
            return float(F.binary_cross_entropy_with_logits(scores / temperature, truth))
        return float(_partial_surprise(scores / temperature, truth).mean())

    grid = np.exp(np.linspace(np.log(0.25), np.log(8.0), 141))
    return float(grid[int(np.argmin([surprise(t) for t in grid]))])


def to_probabilities(logits: np.ndarray, temperature: float, *, multi_label: bool) -> np.ndarray:
    """float32 (rows, labels), as ProbabilityClassifier computes them."""
    scaled = torch.from_numpy(logits) / temperature
    answer = torch.sigmoid(scaled) if multi_label else torch.softmax(scaled, dim=-1)
    return answer.numpy()


def eager_classify(network: ProbabilityClassifier) -> Classify:
    """The PyTorch network as the ``classify`` of a text front."""
    device = next(network.parameters()).device

    def classify(chunks: list[Chunk]) -> list[np.ndarray]:
        answers = []
        with torch.no_grad():
            for input_ids, attention_mask in chunks:
                (probabilities,) = network(
                    torch.from_numpy(input_ids).to(device),
                    torch.from_numpy(attention_mask).to(device),
                )
                answers.append(probabilities.float().cpu().numpy())
        return answers

    return classify


def masked_tokenizer(run_path: Path, max_tokens: int) -> MaskedTokenizer:
    """The tokenizer that a run folder holds."""
    return MaskedTokenizer(run_path / "tokenizer.json", max_tokens=max_tokens)


def _draw_batches(
    sampler: Sampler, tokenizer: MaskedTokenizer, batch_size: int
) -> Callable[[np.random.Generator], Batch]:
    def draw(generator: np.random.Generator) -> Batch:
        pool = sampler(generator, batch_size * _POOL_BATCHES)
        encoded = tokenizer.encode([tokenizer.mask(example.text) for example in pool])
        order = sorted(range(len(pool)), key=lambda index: len(encoded[index]))
        start = int(generator.integers(_POOL_BATCHES)) * batch_size
        chosen = order[start : start + batch_size]
        input_ids, attention_mask = tokenizer.pad([encoded[index] for index in chosen])
        targets = np.array([pool[index].target for index in chosen], dtype=np.float32)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "targets": torch.from_numpy(targets),
        }

    return draw


def _loss(
    network: MeanPooledClassifier, label_weights: tuple[float, ...] | None
) -> Callable[[nn.Module, Batch], Tensor]:
    multi_label = network.config.problem_type == "multi_label_classification"

    def loss_of(module: nn.Module, batch: Batch) -> Tensor:
        answer = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits, targets = answer.logits.float(), batch["targets"]
        weights = None if label_weights is None else targets.new_tensor(label_weights)
        if multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        surprise = _partial_surprise(logits, targets)
        if weights is None:
            return surprise.mean()
        own = (targets * weights).amax(dim=-1)
        return (surprise * own).sum() / own.sum()

    return loss_of


def _partial_surprise(logits: Tensor, allowed: Tensor) -> Tensor:
    """−log Σ P(allowed) of each row; with one label allowed it is cross-entropy."""
    kept = logits + allowed.clamp_min(_FORBIDDEN).log()
    return torch.logsumexp(logits, dim=-1) - torch.logsumexp(kept, dim=-1)
