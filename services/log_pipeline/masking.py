"""``Masker``: lines → masked texts, many at a time, exactly as the served tokenizer masks them.

The rules are the server's own: a front's manifest carries the normalizers of its
``tokenizer.json``. The tokenizers library is what the server runs, so it is the judge here and the
way for everything unusual; polars runs the same ``Replace`` rules over whole columns, more than ten
times faster, on lines where both regex engines are known to agree (tests/unit/log_pipeline
compares them on generated text).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models

from services.log_pipeline.lines import MAXIMUM_CHARACTERS, MAXIMUM_LINE_BYTES

_VECTOR_ROWS = 48
"""Fewer lines are sooner masked one by one: a column costs the compilation of every pattern."""

_SINGLE_DIGITS = b"23456789"
_CJK = r"[\x{4E00}-\x{9FFF}]"
# Printable ASCII, CJK ideographs and the punctuation used with them: no character that the
# cleaning step drops, and none that Unicode versions or engines put into different classes.
_COMMON = re.compile(r"[\t -~\u3001-\u3003\u3008-\u3011\u4e00-\u9fff\uff01-\uff0f\uff1a-\uff20]*")
_PROBES = (
    "2005-06-03-15.42.50.675872 R02-M1-N0 RAS KERNEL INFO 0 errors, 0.000 s, 1,234 of 0x7f00",
    "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: rhost=218.188.2.4:22 /var/log/messages.1 C:\\a b",
    "17/06/09 20:10:40 INFO blk_-1608999687919862906 38101a0b-2096-447d-96ea-a692162415ae",
    "GET https://example.org/a?b=1, 节点3掉卡，显存0字节 fe80::1:2:3:4 00:1a:2b:3c:4d:5e a.b.c12",
)


class Masker:
    """Masks as the server does. ``steps``: the manifest's ``masking``.

    Example::

        masker = Masker(client.describe()["masking"])
        masker.mask([b"error 5 on core 3"])    # ["error <num> on core <num>"]
    """

    def __init__(self, steps: Sequence[dict[str, Any]]) -> None:
        self._normalizer = _normalizer(steps)
        self._rules = _vector_rules(steps)
        self._digits = _digit_table(steps)
        if self._rules is not None and not self._agrees():
            logging.getLogger("log_pipeline").warning(
                "masking rules that polars reads otherwise: every new line is masked by itself"
            )
            self._rules = None

    @property
    def is_vectorised(self) -> bool:
        return self._rules is not None

    def key(self, block: bytes) -> bytes:
        """``block`` with every digit 2…9 as 1, where the rules cannot tell them apart.

        Two lines of one key have one masked text, if that text has no digit 1…9 left: every test
        of every rule gives the same answer for both, so the same spans are replaced, and what is
        not replaced is equal. See ``is_keyed``.
        """
        return block.translate(self._digits)

    @staticmethod
    def is_keyed(masked: str) -> bool:
        """Whether every line of the same ``key`` has this masked text."""
        return not _DIGIT.search(masked)

    def mask_one(self, line: bytes) -> str:
        """What the model sees of one line, before case is folded."""
        text = line[:MAXIMUM_LINE_BYTES].decode("utf-8", "replace")[:MAXIMUM_CHARACTERS]
        masked: str = self._normalizer.normalize_str(text.replace("\0", " "))
        return masked

    def mask(self, lines: Sequence[bytes]) -> list[str]:
        """``[mask_one(line) for line in lines]``, faster."""
        if self._rules is None or len(lines) < _VECTOR_ROWS:
            return [self.mask_one(line) for line in lines]
        masked: list[str | None] = [None] * len(lines)
        common: list[str] = []
        places: list[int] = []
        for index, line in enumerate(lines):
            text = line.decode("utf-8", "replace") if len(line) <= MAXIMUM_CHARACTERS else None
            if text is not None and _COMMON.fullmatch(text):
                common.append(text)
                places.append(index)
            else:
                masked[index] = self.mask_one(line)
        for index, text in zip(places, self._mask_column(common), strict=True):
            masked[index] = text
        return masked  # type: ignore[return-value]

    def _mask_column(self, texts: list[str]) -> list[str]:
        import polars

        assert self._rules is not None
        column = polars.col("text")
        for pattern, content in self._rules:
            column = column.str.replace_all(pattern, content)
        frame = polars.DataFrame({"text": texts}, schema={"text": polars.String})
        # The streaming engine works through the rules morsel by morsel: both cores, little memory.
        done = frame.lazy().select(column.str.strip_chars()).collect(engine="streaming")
        masked: list[str] = done["text"].to_list()
        return masked

    def _agrees(self) -> bool:
        try:
            return self._mask_column(list(_PROBES)) == [
                self.mask_one(probe.encode()) for probe in _PROBES
            ]
        except Exception:  # polars' own error for a pattern that its engine does not know
            return False


_DIGIT = re.compile("[1-9]")


def _normalizer(steps: Sequence[dict[str, Any]]) -> Any:
    """The steps as the tokenizers library runs them; its only reader of JSON is a tokenizer's."""
    document = json.loads(Tokenizer(models.WordLevel({"?": 0}, unk_token="?")).to_str())
    document["normalizer"] = {"type": "Sequence", "normalizers": list(steps)}
    return Tokenizer.from_str(json.dumps(document)).normalizer


def _vector_rules(steps: Sequence[dict[str, Any]]) -> list[tuple[str, str]] | None:
    """(pattern, replacement) for polars; None where a step is none of those it can stand for."""
    if not steps or steps[0].get("type") != "BertNormalizer" or steps[-1].get("type") != "Strip":
        return None
    clean = steps[0]
    if clean.get("lowercase") or clean.get("strip_accents") or not clean.get("clean_text"):
        return None
    if not (steps[-1].get("strip_left") and steps[-1].get("strip_right")):
        return None
    rules = [(r"\t", " ")]
    if clean.get("handle_chinese_chars"):
        rules.append((_CJK, " ${0} "))
    for step in steps[1:-1]:
        pattern = step.get("pattern", {}).get("Regex")
        if step.get("type") != "Replace" or pattern is None:
            return None
        rules.append((pattern, step["content"].replace("$", "$$")))
    return rules


def _digit_table(steps: Sequence[dict[str, Any]]) -> bytes:
    """A table for ``bytes.translate``: 2…9 → 1, or nothing where a rule names a single digit.

    Counts in braces aside, the digits of a pattern must stand in ranges 0-9 or 1-9; escapes by
    code point could hide one.
    """
    for step in steps:
        if step.get("type") in {"BertNormalizer", "Strip"}:
            continue
        pattern = step.get("pattern", {}).get("Regex")
        if step.get("type") != "Replace" or pattern is None:
            return bytes(range(256))
        rest = re.sub(r"[01]-9", "", re.sub(r"\{[0-9]*,?[0-9]*\}", "", pattern))
        if _DIGIT.search(rest) or re.search(r"\\[xuopPkgN]", rest):
            return bytes(range(256))
    return bytes.maketrans(_SINGLE_DIGITS, b"1" * len(_SINGLE_DIGITS))
