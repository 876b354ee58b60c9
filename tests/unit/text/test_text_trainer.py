"""Training in a few steps: it learns, it repeats itself, it calibrates."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.source import DataSource
from training.loop import seed_everything
from training.run import TrainRun
from training.text.encoder import load_encoder
from training.text.network import read_network
from training.text.trainer import (
    TextExample,
    TextFitSettings,
    calibrate_temperature,
    fit_text_classifier,
    masked_tokenizer,
    predict_logits,
    to_probabilities,
)

TEXTS = {"disk failed": (0.0, 1.0), "number of file is 12": (1.0, 0.0)}


def sampler(generator: np.random.Generator, count: int) -> list[TextExample]:
    pairs = list(TEXTS.items())
    return [TextExample(*pairs[i]) for i in generator.integers(len(pairs), size=count)]


def train(folder: Path, encoder: Path, steps: int, seed: int = 0) -> list[float]:
    folder.mkdir()
    seed_everything(seed)
    loaded = load_encoder(
        str(encoder),
        labels=("normal", "anomaly"),
        problem_type="single_label_classification",
        report=False,
    )
    run = TrainRun(
        model="text",
        preset="test",
        path=folder,
        data=DataSource(None, "generated"),
        seed=seed,
        device="cpu",
        arguments=Namespace(),
        progress=False,
    )
    settings = TextFitSettings(
        max_tokens=16, epochs=steps, draws_per_epoch=8, batch_size=8, learning_rate=5e-3
    )
    return fit_text_classifier(run, loaded, sampler, settings)


def test_it_learns_and_is_read_back(tiny_encoder: Path, tmp_path: Path) -> None:
    losses = train(tmp_path / "run", tiny_encoder, steps=40)
    assert len(losses) == 40
    network = read_network(tmp_path / "run")
    tokenizer = masked_tokenizer(tmp_path / "run", 16)
    logits = predict_logits(network, tokenizer, list(TEXTS), chunk_rows=1)
    assert logits.argmax(1).tolist() == [1, 0]


def test_one_step_and_same_seed_same_weights(tiny_encoder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, tiny_encoder, steps=1, seed=seed)
    a, b, c = (read_network(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_predictions_do_not_depend_on_the_batch(tiny_encoder: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", tiny_encoder, steps=1)
    network = read_network(tmp_path / "run")
    tokenizer = masked_tokenizer(tmp_path / "run", 16)
    texts = ["disk", "a b c d e f g", "disk failed failed"]
    together = predict_logits(network, tokenizer, texts)
    alone = np.concatenate([predict_logits(network, tokenizer, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_temperature_undoes_over_confidence(multi_label: bool, factor: float) -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, (4000, 2)).astype(np.float32)
    chance = to_probabilities(honest, 1.0, multi_label=multi_label)
    if multi_label:
        targets = (generator.random(chance.shape) < chance).astype(np.float32)
    else:
        second = generator.random(len(chance)) < chance[:, 1]
        targets = np.stack([~second, second], axis=1).astype(np.float32)
    found = calibrate_temperature(honest * factor, targets, multi_label=multi_label)
    assert found == pytest.approx(factor, rel=0.15)


def test_nothing_to_calibrate_on() -> None:
    empty = np.zeros((0, 2), np.float32)
    assert calibrate_temperature(empty, empty, multi_label=False) == 1.0
