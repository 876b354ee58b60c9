"""What is measured: the log classifier (MiniLM), one of BERT-base's size, the LSTM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.errors import ArtifactError
from contract.manifest import Graph
from loadtest.served import Arrays
from training.artifact import Artifact

if TYPE_CHECKING:
    import torch

    from training.text.network import ProbabilityClassifier

# Hidden size, layers, heads: of all-MiniLM-L6-v2 and of bert-base.
_MINILM, _BERT_BASE = (384, 6, 12), (768, 12, 12)
_VOCABULARY = 21128  # bert-base-chinese
_LOG_LABELS = ("normal", "anomaly")
_DECISION_ROUNDING = 1e-3


@dataclass(frozen=True)
class Subject:
    """``network``: eval, fp32, on the CPU; forward(*graph inputs) → tuple of the graph's outputs.

    source: where the weights come from. inputs: (batch, length, seed) → the graph's arrays.
    flops: (batch, length) → of one forward, None where they are not counted.
    """

    name: str
    source: str
    network: torch.nn.Module
    graph: Graph
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    inputs: Callable[[int, int, int], Arrays]
    flops: Callable[[int, int], float] | None = None

    @property
    def is_text(self) -> bool:
        return self.flops is not None

    def difference(self, reference: Arrays, answer: Arrays) -> tuple[float, int]:
        """Worst difference of the first output and the rows that decide differently.

        A classifier's in probability, a decision being its likelier label; a forecaster's in parts
        of the spread of the reference's forecasts over the batch: it decides nothing by itself.
        """
        name = self.graph.outputs[0].name
        expected, got = reference[name], answer[name]
        if expected.shape != got.shape:
            return float("inf"), len(expected)
        worst = float(np.max(np.abs(expected.astype(np.float64) - got)))
        if not self.is_text:
            return worst / max(float(np.std(expected)), 1e-9), 0
        top = np.sort(expected, axis=1)
        clear = top[:, -1] - top[:, -2] > _DECISION_ROUNDING
        return worst, int(np.sum((expected.argmax(1) != got.argmax(1)) & clear))


def find_subjects(artifacts: Path, *, small: bool) -> list[Subject]:
    """The newest trained runs where there are any, else the same sizes with random weights.

    small: a grid that a CPU finishes, for a dry run
    """
    lengths = (32,) if small else (32, 128, 512)
    batches = (1, 2) if small else (1, 8, 32, 128)
    return [
        _text("minilm", "log_anomaly_classifier", _MINILM, artifacts, batches, lengths),
        _text("bert_base", "bert_base_classifier", _BERT_BASE, None, batches, lengths),
        forecaster(artifacts, (1, 64) if small else (1, 64, 1024, 4096, 16384)),
    ]


def _text(
    name: str,
    triton_name: str,
    size: tuple[int, int, int],
    artifacts: Path | None,
    batches: tuple[int, ...],
    lengths: tuple[int, ...],
) -> Subject:
    from training.text.network import load_classifier

    artifact = None if artifacts is None else _latest("log_anomaly", None, artifacts)
    if artifact is not None:
        return text_subject(
            name,
            f"run {artifact.manifest.run_id}",
            load_classifier(artifact),
            triton_name,
            batches,
            lengths,
        )
    return text_subject(
        name, "random weights", random_classifier(size), triton_name, batches, lengths
    )


def text_subject(
    name: str,
    source: str,
    network: ProbabilityClassifier,
    triton_name: str,
    batches: tuple[int, ...],
    lengths: tuple[int, ...],
) -> Subject:
    """A classifier of two labels."""
    from training.text.text_spec import text_graph

    config = network.config
    hidden, layers = config.hidden_size, config.num_hidden_layers
    vocabulary = config.vocab_size
    graph = text_graph(triton_name, _LOG_LABELS, 512, max_batch_size=max(batches))

    def inputs(batch: int, length: int, seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        return {
            "input_ids": random.integers(1, vocabulary, (batch, length), dtype=np.int64),
            "attention_mask": np.ones((batch, length), dtype=np.int64),
        }

    def flops(batch: int, length: int) -> float:
        """Matrix products: 12 hidden² weights a layer and token, two attention products."""
        return float(batch * length * layers * (24.0 * hidden**2 + 4.0 * length * hidden))

    return Subject(name, source, network, graph, batches, lengths, inputs, flops)


def random_classifier(size: tuple[int, int, int]) -> ProbabilityClassifier:
    """``size``: hidden size, layers, heads. The same weights every time."""
    import torch
    from transformers import BertConfig

    from training.text.classifier import MeanPooledClassifier
    from training.text.network import ProbabilityClassifier

    torch.manual_seed(0)
    hidden, layers, heads = size
    config: Any = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=_VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        num_labels=len(_LOG_LABELS),
    )
    config._attn_implementation = "eager"
    network: Any = ProbabilityClassifier(MeanPooledClassifier(config))
    network.eval()
    return network  # type: ignore[no-any-return]


def forecaster(artifacts: Path, batches: tuple[int, ...]) -> Subject:
    """Preset ``next``."""
    import torch

    from training.metric_forecast.graph import DEFAULT_QUANTILES, PRESETS, make_graph
    from training.metric_forecast.network import LSTMForecast
    from training.metric_forecast.settings import settings_for
    from training.registry import get_spec

    preset = "next"
    context, horizon = PRESETS[preset]
    artifact = _latest("metric_forecast", preset, artifacts)
    if artifact is not None:
        network = get_spec("metric_forecast").load_network(artifact).eval()
        source = f"run {artifact.manifest.run_id}"
    else:
        torch.manual_seed(0)
        network = LSTMForecast(settings_for(context, horizon, DEFAULT_QUANTILES)).eval()
        source = "random weights"
    graph = make_graph(preset, context, horizon, DEFAULT_QUANTILES)
    graph = graph.model_copy(update={"max_batch_size": max(batches)})

    def inputs(batch: int, length: int, seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        steps = np.cumsum(random.normal(size=(batch, context)), axis=1)
        return {
            "series": (50.0 + steps).astype(np.float32),
            "season_length": np.full((batch, 1), 288, dtype=np.int64),
        }

    return Subject("lstm_next", source, network, graph, batches, (context,), inputs)


def _latest(model: str, preset: str | None, artifacts: Path) -> Artifact | None:
    """None: no run, or one of an older architecture."""
    from training.registry import get_spec

    wanted = preset or get_spec(model).presets[0]
    try:
        return Artifact.latest(model, wanted, artifacts)
    except ArtifactError:
        return None
