"""Variable parts go, words and a literal zero stay, in every place that reads tokenizer.json."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizer

from contract.errors import EncoderError
from training.text.encoder import load_tokenizer
from training.text.masking import (
    JOB_MASKS,
    LOG_MASKS,
    PLACEHOLDERS,
    add_characters,
    add_masking,
    unknown_characters,
    wrap,
)
from training.text.text_batch import MaskedTokenizer

CASES = [
    ("took 12 ms", "took <num> ms"),
    ("took 12ms", "took <num>ms"),
    ("0 errors, 17 errors", "0 errors, <num> errors"),
    ("rate 0.00 then 3.2%", "rate 0 then <num>%"),
    ("from 10.251.39.209:50010 ok", "from <ip> ok"),
    ("addr fe80::1:2:3:4 up", "addr <ip> up"),
    ("mac 0c:42:a1:00:ff:1e", "mac <hex>"),
    ("at 0x1fBEEF", "at <hex>"),
    ("commit 9fceb02d0ae598e9", "commit <hex>"),
    ("id 550e8400-e29b-41d4-a716-446655440000", "id <id>"),
    ("block blk_-6952295868487656571 done", "block <id> done"),
    ("open /var/log/app/x.log: gone", "open <path>: gone"),
    ("node/link/service card", "node/link/service card"),
    ("see https://example.com/a?b=1 now", "see <url> now"),
    ("2005-06-03-15.42.50.675872 up", "<time> up"),
    ("2026-11-23T18:19:03.123Z up", "<time> up"),
    ("Sun Dec 04 04:47:44 2005 up", "<time> up"),
    ("Jun 14 15:16:01 host up", "<time> host up"),
    ("17/06/09 20:10:40 INFO", "<time> INFO"),
    ("1117838570 R02-M1", "<num> R<num>-M<num>"),
    ("耗时12秒", "耗 时 <num> 秒"),
    ("失败0个，成功7个", "失 败 0 个 ， 成 功 <num> 个"),
    ("two   blanks\tand tab", "two blanks and tab"),
    ("nul\0byte", "nul byte"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_masked_text(masked: MaskedTokenizer, text: str, expected: str) -> None:
    assert masked.mask(text) == expected


def test_case_is_folded_after_the_cache_key(masked: MaskedTokenizer) -> None:
    assert masked.mask("Disk FAILED") == "Disk FAILED"
    assert masked.encode(["Disk FAILED"]) == masked.encode(["disk failed"])


@pytest.mark.parametrize("token", PLACEHOLDERS)
def test_placeholders_stay_one_token(masked_folder: Path, token: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(masked_folder)
    assert tokenizer.tokenize(f"disk {token} failed") == ["disk", token, "failed"]


def test_survives_save_and_autotokenizer(masked_folder: Path, masked: MaskedTokenizer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(masked_folder)
    for text, _ in CASES:
        text = text.replace("\0", " ")
        assert tokenizer(text)["input_ids"] == masked.encode([masked.mask(text)])[0]


@pytest.mark.parametrize("rules", [LOG_MASKS, JOB_MASKS])
def test_patterns_have_no_look_around(rules: tuple[tuple[str, str], ...]) -> None:
    assert not [pattern for pattern, _ in rules if re.search(r"\(\?(?!:)", pattern)]


def test_job_masks_keep_codes_and_paths(tiny_encoder: Path, tmp_path: Path) -> None:
    tokenizer = wrap(Tokenizer.from_file(str(tiny_encoder / "tokenizer.json")), 64)
    add_masking(tokenizer, JOB_MASKS)
    tokenizer.save_pretrained(tmp_path)
    job = MaskedTokenizer(tmp_path / "tokenizer.json", max_tokens=64)
    assert job.mask("exit code 137 in /dev/shm") == "exit code 137 in /dev/shm"
    assert job.mask("pid 31337") == "pid <num>"


def test_use_fast_false_is_refused(masked_folder: Path, tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="use_fast"):
        load_tokenizer(masked_folder, use_fast=False)
    slow = BertTokenizer(str(tiny_encoder / "vocab.txt"))
    with pytest.raises(EncoderError, match="fast tokenizer"):
        add_masking(slow)


def test_unknown_characters_become_wordpieces(tiny_encoder: Path) -> None:
    tokenizer = wrap(Tokenizer.from_file(str(tiny_encoder / "tokenizer.json")), 64)
    characters = unknown_characters(tokenizer, ["磁盘 failed", "显存"])
    assert characters == sorted("磁盘显存")
    grown = add_characters(tokenizer, characters)
    assert grown.tokenize("磁盘 failed 显") == ["磁", "盘", "failed", "显"]
    assert len(grown) == len(tokenizer) + 4
    assert unknown_characters(grown, ["磁盘"]) == []
