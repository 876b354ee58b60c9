"""A BERT small enough to train in a test, and the masking tokenizer on it."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from training.text.masking import LOG_MASKS, add_masking, wrap
from training.text.text_batch import MaskedTokenizer

WORDS = "disk failed error errors time date ip address id identifier code file path link web number"


def write_tiny_encoder(folder: Path) -> Path:
    """A local encoder folder: config.json, model.safetensors, tokenizer.json."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    vocabulary += [*characters, *(f"##{c}" for c in string.ascii_lowercase + string.digits)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=96,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def masked_folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it, as far as the tokenizer goes."""
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("masked")
    tokenizer = wrap(Tokenizer.from_file(str(tiny_encoder / "tokenizer.json")), 64)
    add_masking(tokenizer, LOG_MASKS)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def masked(masked_folder: Path) -> MaskedTokenizer:
    return MaskedTokenizer(masked_folder / "tokenizer.json", max_tokens=64)
