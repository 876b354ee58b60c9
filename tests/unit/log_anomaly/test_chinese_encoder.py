"""``--encoder bert-base-chinese``: a BERT of that vocabulary's size, with tiny random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from export.candidate import Candidate
from export.gate import export_files
from training.artifact import Artifact
from training.command import main
from training.log_anomaly.front import Front
from training.registry import get_spec
from training.text.network import load_classifier
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import eager_classify

VOCABULARY_SIZE = 21_128


@pytest.fixture(scope="module")
def chinese_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the real one: characters of its own, cased pieces, 21,128 entries."""
    folder = tmp_path_factory.mktemp("bert-base-chinese")
    characters = [chr(0x4E00 + index) for index in range(20_000)]
    latin = [chr(code) for code in range(33, 127)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *latin, *characters, *(f"##{letter}" for letter in latin)]
    vocabulary += [f"[unused{n}]" for n in range(VOCABULARY_SIZE - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_it_trains_and_exports(
    chinese_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRESAGE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    command = ["train", "log_anomaly", "--encoder", str(chinese_encoder), "--quiet"]
    command += ["--device", "cpu", "--epochs", "1", "--draws", "64", "--artifacts", str(tmp_path)]
    assert main(command) == 0
    artifact = Artifact.latest("log_anomaly", "line", tmp_path)
    tokenizer = MaskedTokenizer(artifact.path / "tokenizer.json", max_tokens=64)
    ids = tokenizer.encode(["内存不足 <num>"])[0]
    # Each character is a piece of its own encoder; the placeholder comes after them all.
    assert len(ids) == 7
    assert ids[-2] >= VOCABULARY_SIZE
    network = load_classifier(artifact)
    front = Front(artifact.path, eager_classify(network))
    (answer,) = front.answer([{"text": np.array([["内存不足".encode()]], dtype=object)}])
    assert not isinstance(answer, Exception)

    candidate = Candidate(get_spec("log_anomaly"), artifact)
    export_files(candidate)
    assert candidate.file("onnx").stat().st_size > VOCABULARY_SIZE * 16 * 4
    assert candidate.file("torchscript").is_file()
