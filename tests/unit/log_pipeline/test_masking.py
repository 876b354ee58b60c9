"""Vectorised masking is the tokenizer's own, and one key never stands for two masked texts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.log_pipeline.masking import MAXIMUM_CHARACTERS, Masker
from tests.unit.log_pipeline.log_text import plain_texts, raw_lines, texts


def in_a_column(masker: Masker, lines: list[bytes]) -> list[str]:
    """Masked with enough company to be worth a column."""
    filler = [b"filler %d" % number for number in range(64)]
    return masker.mask(lines + filler)[: len(lines)]


@given(lines=st.lists(st.one_of(raw_lines(), raw_lines(), texts().map(str.encode)), max_size=12))
@settings(max_examples=300, deadline=None)
@example(
    lines=["节点3掉卡，显存0字节".encode(), b"\xff\x00 1", b"\x1b[31m12\x1b[0m", b"1,2345 1,2340"]
)
def test_a_column_is_masked_as_the_tokenizer_does(masker: Masker, lines: list[bytes]) -> None:
    assert masker.is_vectorised
    assert in_a_column(masker, lines) == [masker.mask_one(line) for line in lines]


@given(text=st.one_of(texts(), plain_texts()), seed=st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
@example(text="1,2345", seed=1)
@example(text="2005-06-031", seed=1)
def test_lines_of_one_key_have_one_masked_text(masker: Masker, text: str, seed: int) -> None:
    chosen = random.Random(seed)
    other = "".join(chosen.choice("123456789") if c in "123456789" else c for c in text)
    line, twin = text.encode("utf-8", "replace"), other.encode("utf-8", "replace")
    assert masker.key(line) == masker.key(twin)
    if masker.is_keyed(masker.mask_one(line)):
        assert masker.mask_one(line) == masker.mask_one(twin)


def test_most_lines_are_keyed(masker: Masker) -> None:
    line = b"Jun 14 15:16:01 combo sshd(pam_unix)[19939]: rhost=218.188.2.4 port 0 blk_-29"
    assert masker.is_keyed(masker.mask_one(line))
    assert masker.key(line) == masker.key(line.replace(b"19939", b"28147"))
    assert masker.key(line) != masker.key(line.replace(b"port 0", b"port 7"))


def test_a_rule_that_names_a_digit_ends_the_merging(steps: list[dict[str, Any]]) -> None:
    for pattern in (r"\bexit code 7\b", r"[!-5]", r"\x37", r"([a-z])\1"):
        extra = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "<x>"}
        other = Masker([steps[0], extra, *steps[1:]])
        assert other.key(b"exit code 7") == b"exit code 7", pattern


def test_rules_that_polars_does_not_know_are_left_to_the_tokenizer(
    steps: list[dict[str, Any]],
) -> None:
    look_behind = {"type": "Replace", "pattern": {"Regex": r"(?<=core )x"}, "content": "y"}
    masker = Masker([steps[0], look_behind, *steps[1:]])
    assert not masker.is_vectorised
    assert in_a_column(masker, [b"core x 12"]) == ["core y <num>"]


def test_a_long_line_is_cut_where_the_front_cuts_it(masker: Masker) -> None:
    for line in (b"x1 " * 400_000, "é".encode() * 40_000, "😀".encode() * 20_000):
        (masked,) = in_a_column(masker, [line])
        assert masked == masker.mask_one(line)
        assert len(masked) <= 3 * MAXIMUM_CHARACTERS


@pytest.mark.parametrize("content", ["$1", "${0}", "$$"])
def test_a_dollar_in_a_replacement_is_a_dollar(steps: list[dict[str, Any]], content: str) -> None:
    dollar = {"type": "Replace", "pattern": {"Regex": "core"}, "content": content}
    assert in_a_column(Masker([steps[0], dollar, *steps[1:]]), [b"core"]) == [
        Masker([steps[0], dollar, *steps[1:]]).mask_one(b"core")
    ]
