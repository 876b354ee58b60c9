"""The exported network: probabilities, TorchScript and ONNX at any batch and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import BertOnnxConfig
from transformers import BertConfig

from contract.errors import ArtifactCorruptError
from training.text.classifier import MeanPooledClassifier
from training.text.network import ProbabilityClassifier, read_network

SHAPES = [(1, 1), (2, 8), (7, 33), (32, 64)]


def classifier(problem_type: str, temperature: float = 1.0) -> ProbabilityClassifier:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=3,
        problem_type=problem_type,
        attn_implementation="eager",
        initializer_range=0.5,
    )
    return ProbabilityClassifier(MeanPooledClassifier(config), temperature).eval()


def rows(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch * 100 + length)
    input_ids = torch.randint(5, 50, (batch, length), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[: batch // 2, max(1, length // 2) :] = 0
    return input_ids, mask


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_temperature_and_activation(temperature: float) -> None:
    ids, mask = rows(4, 9)
    with torch.no_grad():
        one = classifier("single_label_classification", temperature)
        (probabilities,) = one(ids, mask)
        expected = torch.softmax(one.logits(ids, mask) / temperature, dim=-1)
        torch.testing.assert_close(probabilities, expected)
        several = classifier("multi_label_classification", temperature)
        (probabilities,) = several(ids, mask)
        expected = torch.sigmoid(several.logits(ids, mask) / temperature)
        torch.testing.assert_close(probabilities, expected)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_traced_at_one_shape_runs_at_others(kind: str) -> None:
    network = classifier(kind, 1.7)
    with torch.no_grad():
        traced = torch.jit.trace(network, rows(2, 8), strict=False)
        for batch, length in SHAPES:
            inputs = rows(batch, length)
            torch.testing.assert_close(traced(*inputs)[0], network(*inputs)[0], atol=1e-6, rtol=0)


class _Contract(BertOnnxConfig):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        axes = {0: "batch", 1: "sequence"}
        return {"input_ids": axes, "attention_mask": axes}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"probabilities": {0: "batch"}}


def test_optimum_exports_it(tmp_path: Path) -> None:
    network = classifier("single_label_classification", 1.7)
    path = tmp_path / "model.onnx"
    export(network, _Contract(network.config, task="text-classification"), path, opset=17)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, length in SHAPES:
        ids, mask = rows(batch, length)
        (answer,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        with torch.no_grad():
            expected = network(ids, mask)[0].numpy()
        assert np.abs(answer - expected).max() <= 1e-5


def test_saved_weights_come_back(tmp_path: Path) -> None:
    network = classifier("single_label_classification").classifier_model
    network.save_pretrained(tmp_path)
    ids, mask = rows(3, 5)
    with torch.no_grad():
        before, after = network(ids, mask).logits, read_network(tmp_path)(ids, mask).logits
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_broken_weights(tmp_path: Path, broken: str) -> None:
    classifier("single_label_classification").classifier_model.save_pretrained(tmp_path)
    (tmp_path / broken).write_bytes(b"\0 not this")
    with pytest.raises(ArtifactCorruptError, match="cannot be read"):
        read_network(tmp_path)
