"""An upload in pieces of any size is read as the whole; what is none is refused."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import RequestRefusedError
from services.job_diagnosis.reading import LogReader, ReadLog

NOW = 1.7e9


def read(
    body: bytes, *cuts: int, extra: tuple[str, ...] = (), largest: int = 1 << 30, **how: Any
) -> ReadLog:
    reader = LogReader(largest_bytes=largest, now=lambda: NOW, **how)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    for start, stop in itertools.pairwise(places):
        reader.feed(body[start:stop])
    return reader.finish(extra)


@given(
    lines=st.lists(
        st.sampled_from(
            ["step 1", "", "错误 出错", "password=abcdefg", '{"message": "a"}', "x" * 200]
        ),
        min_size=1,
        max_size=30,
    ).filter(lambda lines: any(lines)),
    cuts=st.lists(st.integers(0, 3_000), max_size=8),
    packed=st.booleans(),
)
@settings(deadline=None)
def test_pieces_make_the_whole(lines: list[str], cuts: list[int], packed: bool) -> None:
    text = "\n".join(lines).encode()
    log = read(gzip.compress(text) if packed else text, *cuts)
    assert log.log_sha256 == hashlib.sha256(text).hexdigest()
    assert log.size_bytes == len(text)
    assert log.text == text.replace(b"abcdefg", b"[masked]")
    assert log.secrets == lines.count("password=abcdefg")


@given(cuts=st.lists(st.integers(0, 600), max_size=8))
def test_documents_become_lines_at_their_own_numbers(cuts: list[int]) -> None:
    rows: list[Any] = [
        {"message": "first", "kubernetes": {"node": {"name": "gpu-3"}}},
        {"_source": {"log": "second\n", "host": "x"}},
        "no json {",
        {"message": "failed", "error.stack_trace": "Traceback\n  boom"},
        {"message": "two\nlines"},
        [1, 2],
        {"other": 1},
    ]
    body = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()
    log = read(body, *cuts, json_lines=True)
    lines = log.text.decode().split("\n")
    assert lines[0] == "first"
    assert json.loads(lines[1]) == {"message": "second\n"}
    assert lines[2] == "no json {"
    assert json.loads(lines[3]) == {"message": "failed", "error": "Traceback\n  boom"}
    assert json.loads(lines[4]) == {"message": "two\nlines"}
    assert lines[5:] == ["[1, 2]", ""]
    assert log.node == "gpu-3"
    assert (log.odd["no_json"], log.odd["no_object"], log.odd["no_message"]) == (1, 1, 1)


def test_a_line_without_end_is_no_document_and_costs_no_memory() -> None:
    log = read(b"x" * (3 << 20) + b"\nerror", json_lines=True)
    assert log.text.count(b"\n") == 1
    assert log.text.endswith(b"error")


def test_what_is_huge_is_thinned_and_its_lines_keep_their_numbers() -> None:
    calm = b"a line without anything in it at all, number %d\n"
    reader = LogReader(largest_bytes=1 << 30, now=lambda: NOW)
    for start in range(0, 600_000, 10_000):
        reader.feed(b"".join(calm % number for number in range(start, start + 10_000)))
    reader.feed(b"RuntimeError: out of memory token=abcdefghijklmnop1234\n")
    log = reader.finish(("exit code 137",))
    lines = log.text.split(b"\n")
    assert len(log.text) <= 20 << 20
    place = lines.index(b"RuntimeError: out of memory token=[masked]")
    assert log.line_numbers[place] == 600_001
    assert lines[-1] == b"exit code 137"


def test_extra_lines_are_evidence_and_make_another_log() -> None:
    plain, with_code = read(b"boom"), read(b"boom", extra=("exit code 137", "OOMKilled"))
    assert with_code.text == b"boom\nexit code 137\nOOMKilled"
    assert plain.log_sha256 != with_code.log_sha256


@pytest.mark.parametrize(
    ("body", "reason", "status"),
    [
        (b"", "empty_log", 422),
        (b"\n\n \t", "empty_log", 422),
        ("\u3000\n".encode() * 9, "empty_log", 422),
        (b"\0" * 99_000, "empty_log", 422),
        (gzip.compress(b""), "empty_log", 422),
        (bytes(range(256)) * 9, "binary_log", 422),
        ("RuntimeError".encode("utf-16"), "binary_log", 422),
        (b"\x1f\x8b\x08nonsense", "body", 400),
        (gzip.compress(b"cut off" * 999)[:-5], "body", 400),
        (gzip.compress(b"a") + b"trailing rubbish", "body", 400),
        (gzip.compress(b"a" * 5_000), "body_size", 413),
        (b"a" * 5_000, "body_size", 413),
    ],
)
@pytest.mark.parametrize("cuts", [(), (1, 2, 3)])
def test_what_is_no_log(body: bytes, reason: str, status: int, cuts: tuple[int, ...]) -> None:
    with pytest.raises(RequestRefusedError) as raised:
        read(body, *cuts, largest=4_000 if reason == "body_size" else 1 << 20)
    assert (raised.value.reason, raised.value.status) == (reason, status)


@pytest.mark.parametrize(
    "body", [b"\xff", b"a\0b", b"\x1b[31merror\x1b[0m", "ошибка".encode() * 999, b"\1\2\3 boom"]
)
def test_odd_text_is_text(body: bytes) -> None:
    assert read(body).text == body
