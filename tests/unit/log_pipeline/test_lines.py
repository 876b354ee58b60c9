"""Odd bytes: mended, counted, never fatal, order kept."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from services.log_pipeline.joining import TracebackJoiner, as_line
from services.log_pipeline.lines import (
    MAXIMUM_LINE_BYTES,
    Oddities,
    clean_event,
    open_log,
    read_blocks,
    split_lines,
)


def read(raw: bytes, size: int = 16) -> tuple[list[bytes], Oddities]:
    odd = Oddities()
    lines: list[bytes] = []
    for block in read_blocks(io.BytesIO(raw), odd, size):
        lines += split_lines(block, odd)
    return lines, odd


def test_what_is_odd_is_mended_and_counted() -> None:
    raw = b"crlf\r\n\x1b[31mred\x1b[0m\x1b]0;title\x07 text\n\xff\xfe bytes\nnul\0byte\n\nlast"
    lines, odd = read(raw, 1 << 20)
    assert lines == [b"crlf", b"red text", b"\xff\xfe bytes", b"nul\0byte", b"", b"last"]
    assert odd == {"crlf": 1, "ansi": 1, "invalid_utf8": 1, "binary": 1, "unterminated": 1}


@given(st.lists(st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\x1b"))))
def test_lines_are_the_same_whatever_the_blocks(lines: list[bytes]) -> None:
    assert read(b"".join(line + b"\n" for line in lines))[0] == lines


@pytest.mark.parametrize("size", [1000, 70_000, 10 << 20])
def test_a_long_line_is_cut_and_the_next_ones_stay(size: int) -> None:
    raw = b"first\n" + b"x" * 1_000_000 + b"\nnext\n" + b"y" * 70_000
    lines, odd = read(raw, size)
    assert [line[:5] for line in lines] == [b"first", b"xxxxx", b"next", b"yyyyy"]
    assert max(map(len, lines)) == MAXIMUM_LINE_BYTES
    assert odd["long"] == 2


def test_an_event_of_several_lines_is_one_line() -> None:
    odd = Oddities()
    assert clean_event("a\nb\r\nc", odd) == b"a b c"
    assert clean_event("", odd) == b""
    assert clean_event("\ud800", odd) == b"?"
    assert odd == {"multiline": 1}


def test_packed_logs_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\n"))
    (tmp_path / "b.zst").write_bytes(zstandard.compress(b"two\n") + zstandard.compress(b"three\n"))
    for name, expected in (("a.gz", b"one\n"), ("b.zst", b"two\nthree\n")):
        with open_log(tmp_path / name) as stream:
            assert stream.read(100) == expected
    with pytest.raises(InputError, match="cannot be opened"):
        open_log(tmp_path / "nothing")


PYTHON = b"""ERROR boom
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
ValueError: y
INFO next""".split(b"\n")
JAVA = b"""ERROR java.io.IOException: z
\tat a.b(C.java:1)
Caused by: java.lang.Error
\tat d.e(F.java:2)
\t... 12 more
INFO next""".split(b"\n")


@pytest.mark.parametrize(("lines", "sizes"), [(PYTHON, [1, 10, 1]), (JAVA, [5, 1])])
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_traceback_is_one_event(lines: list[bytes], sizes: list[int], chunk: int) -> None:
    joiner = TracebackJoiner()
    events = []
    for start in range(0, len(lines), chunk):
        events += joiner.feed(lines[start : start + chunk])
    events += joiner.flush()
    assert [len(event) for event in events] == sizes
    assert [line for event in events for line in event] == lines


@given(st.lists(st.sampled_from([*PYTHON, *JAVA, b"", b" x", b"a"])))
def test_joining_loses_no_line(lines: list[bytes]) -> None:
    joiner = TracebackJoiner()
    events = joiner.feed(lines) + joiner.flush()
    assert [line for event in events for line in event] == lines


def test_a_long_event_keeps_its_last_line() -> None:
    event = [b"Traceback", *[b"  frame" * 100] * 400, b"ValueError: y"]
    line = as_line(event)
    assert len(line) <= MAXIMUM_LINE_BYTES
    assert line.endswith(b" ValueError: y")
