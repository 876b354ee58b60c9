"""Masks the variable parts of log text inside ``tokenizer.json``, and learns missing characters.

The normalizer becomes ``Sequence([clean, Replace(Regex(..), "<num>"), …, the encoder's own])``: it
survives ``save_pretrained`` and ``AutoTokenizer`` and is the same in every place that reads the
file. No look-around in the patterns; a leading cleaner sets CJK characters apart, so that ``\\b``
stands between a digit and a Chinese word as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from contract.errors import EncoderError

MaskRule = tuple[str, str]
"""Pattern (Oniguruma, no look-around) and what replaces it."""

PLACEHOLDERS = ("<time>", "<ip>", "<id>", "<hex>", "<path>", "<url>", "<num>")
# English words whose mean embedding starts each placeholder off.
PLACEHOLDER_GLOSSES = {
    "<time>": "time date",
    "<ip>": "ip address",
    "<id>": "id identifier",
    "<hex>": "address code",
    "<path>": "file path",
    "<url>": "link web",
    "<num>": "number",
}

_MONTHS = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAYS = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?"
_ZONE = r"(?:Z\b| ?[+-][0-9]{2}:?[0-9]{2}\b)?"

_STRUCTURED: tuple[MaskRule, ...] = (
    (r"\bhttps?://[^\s\"'<>,;)]+", "<url>"),
    # 2005-06-03-15.42.50.675872, 2016-09-28T04:30:30.123Z, 2015/07/29 17:41:44,747
    (
        r"\b[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
        rf"(?:(?:[T_-]| +)[0-9]{{1,2}}[:.][0-9]{{2}}[:.][0-9]{{2}}(?:[.,][0-9]+)?{_ZONE})?",
        "<time>",
    ),
    # Sun Dec 04 04:47:44 2005, Jun 14 15:16:01
    (
        rf"\b(?:{_DAYS},? +)?{_MONTHS} +[0-9]{{1,2}},? +(?:[0-9]{{4}},? +)?{_CLOCK}"
        r"(?: +[A-Z]{3,4}\b)?(?: +[0-9]{4}\b)?",
        "<time>",
    ),
    # 17/06/09 20:10:40, 10.30 16:49:06
    (rf"\b(?:[0-9]{{2}}[./]){{1,2}}[0-9]{{2,4}} +{_CLOCK}", "<time>"),
    (rf"\b{_CLOCK}\b", "<time>"),
    (r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b", "<id>"),
    (r"\bblk_-?[0-9]+", "<id>"),
    (r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:[:/][0-9]+)?\b", "<ip>"),
    # MAC, then IPv6 (four groups or more), then PCI addresses
    (r"\b[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}\b", "<hex>"),
    (r"\b[0-9a-fA-F]{1,4}(?:::?[0-9a-fA-F]{1,4}){3,7}\b", "<ip>"),
    (r"\b[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-9a-fA-F])?\b", "<hex>"),
    (r"\b0[xX][0-9a-fA-F]+", "<hex>"),
    # Long runs of digits alone are numbers, not hex.
    (r"\b[0-9]{8,}\b", "<num>"),
    (r"\b(?:[0-9a-fA-F]{16,}|[0-9a-fA-F]{4,}[0-9][0-9a-fA-F]{3,})\b", "<hex>"),
)
_PATHS: tuple[MaskRule, ...] = (
    # \B: nothing wordlike before the first slash, so "node/link/service" stays words.
    (r"\B/(?:[\w.@%+=:~-]+/)+(?:[\w.@%+=:~-]*\w)?", "<path>"),
    (r"\b[A-Za-z]:\\[^\s\"'<>|]+", "<path>"),
)
_NUMBERS: tuple[MaskRule, ...] = (
    # "0 errors" is not "7 errors": zero stays.
    (r"\b0\.0+\b", "0"),
    (r"\b(?:[0-9]+(?:\.[0-9]+)+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*|0[0-9]+)", "<num>"),
    (r"\B[0-9]+", "<num>"),
)
_LONG_NUMBERS: tuple[MaskRule, ...] = (
    (r"\b0\.0+\b", "0"),
    (r"\b(?:[0-9]+(?:\.[0-9]+)+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]{4,})", "<num>"),
    (r"\B[0-9]{4,}", "<num>"),
)
_BLANKS: tuple[MaskRule, ...] = ((r"\s+", " "),)

LOG_MASKS: tuple[MaskRule, ...] = _STRUCTURED + _PATHS + _NUMBERS + _BLANKS
"""For single log lines: every number but 0 goes."""

JOB_MASKS: tuple[MaskRule, ...] = _STRUCTURED + _LONG_NUMBERS + _BLANKS
"""For job logs: integers up to three digits stay (exit code 137, Xid 79, HTTP 403), paths too."""


def add_masking(tokenizer: PreTrainedTokenizerFast, rules: Sequence[MaskRule] = LOG_MASKS) -> None:
    """Put ``rules`` before the tokenizer's own normalizer, in place, and add the placeholders.

    Raises:
        EncoderError: not a fast tokenizer, or one without a normalizer of its own.
    """
    from tokenizers import AddedToken

    require_fast(tokenizer)
    backend: Tokenizer = tokenizer.backend_tokenizer
    own = backend.normalizer
    if own is None:
        raise EncoderError(
            "the encoder's tokenizer has no normalizer",
            expected="a BERT tokenizer (tokenizer.json with a BertNormalizer)",
            got=type(tokenizer).__name__,
        )
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    replace = [normalizers.Replace(Regex(pattern), content) for pattern, content in rules]
    backend.normalizer = normalizers.Sequence([clean, *replace, normalizers.Strip(), own])
    # normalized=True: matched after masking; otherwise "<num>" falls apart into < num >.
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in PLACEHOLDERS])


def require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise EncoderError for a slow tokenizer: it would drop the masking without a word."""
    if not tokenizer.is_fast:
        raise EncoderError(
            "masking lives in tokenizer.json, which slow tokenizers do not read",
            expected="a fast tokenizer",
            got=f"{type(tokenizer).__name__} (use_fast=False?)",
            next_command="load it with use_fast=True",
        )


def unknown_characters(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[str]:
    """CJK characters of ``texts`` that the vocabulary lacks, in order of code point."""
    vocabulary = tokenizer.get_vocab()
    seen = {character for text in texts for character in text if is_cjk(character)}
    return sorted(character for character in seen if character not in vocabulary)


def add_characters(
    tokenizer: PreTrainedTokenizerFast, characters: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A copy whose WordPiece vocabulary ends with ``characters`` (ordinary wordpieces).

    Call before ``add_masking``: the ids of the placeholders come after the vocabulary.
    """
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = document["model"]["vocab"]
    for character in characters:
        vocabulary[character] = len(vocabulary)
    return wrap(Tokenizer.from_str(json.dumps(document)), tokenizer.model_max_length)


def wrap(backend: Tokenizer, model_max_length: int) -> PreTrainedTokenizerFast:
    """A backend tokenizer as transformers' fast one, with BERT's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=model_max_length,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=False,
    )


def is_cjk(character: str) -> bool:
    """Whether BERT's normalizer sets this character apart as an ideograph."""
    code = ord(character)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF
