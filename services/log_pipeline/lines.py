"""Bytes of a log → its lines: whatever is odd about them is mended, counted, and never fatal."""

from __future__ import annotations

import gzip
import io
import re
import select
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from contract.errors import InputError

MAXIMUM_CHARACTERS = 16_384
"""Of one text; the front reads no further."""
MAXIMUM_LINE_BYTES = 4 * MAXIMUM_CHARACTERS
"""A longer line is cut here: UTF-8 takes at most 4 bytes a character, so nothing read is lost."""

BLOCK_BYTES = 4 << 20
_GATHER_SECONDS = 0.05
"""How long what a pipe has to say is gathered: one block costs as much as a few hundred lines."""
# Colours and cursor movements (CSI), titles and links (OSC).
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\^_])")

Oddities = Counter[str]
"""Lines so far by what was odd: ansi, binary, blank, crlf, invalid_utf8, long, unterminated …"""


def split_lines(block: bytes, odd: Oddities) -> list[bytes]:
    """Lines of a block that ends with a line's end (or the log's), cleaned, in order.

    CR before LF and ANSI escapes go; a line beyond MAXIMUM_LINE_BYTES is cut there. Bytes that
    are not UTF-8 and NULs stay as they are: the model reads them as U+FFFD and as spaces.
    """
    if b"\r" in block:
        odd["crlf"] += block.count(b"\r\n")
        block = block.replace(b"\r\n", b"\n")
    has_escapes = b"\x1b" in block
    if has_escapes:
        odd["ansi"] += sum(1 for line in block.split(b"\n") if b"\x1b" in line)
        block = _ANSI.sub(b"", block)
    lines = block.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if b"\0" in block:
        odd["binary"] += sum(1 for line in lines if b"\0" in line)
    if not block.isascii():
        _count_invalid(block, lines, odd)
    # Whatever is longer than this holds at least one line that is too long, or many.
    if len(block) > MAXIMUM_LINE_BYTES and max(map(len, lines), default=0) > MAXIMUM_LINE_BYTES:
        odd["long"] += sum(1 for line in lines if len(line) > MAXIMUM_LINE_BYTES)
        lines = [line[:MAXIMUM_LINE_BYTES] for line in lines]
    return lines


def clean_event(message: str, odd: Oddities) -> bytes:
    """One shipped message as one line: its inner line ends are spaces to the model anyway."""
    raw = message.encode("utf-8", "replace")
    if "\n" in message or "\r" in message:
        odd["multiline"] += 1
        raw = raw.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
    lines = split_lines(raw, odd)
    return lines[0] if lines else b""


def _count_invalid(block: bytes, lines: list[bytes], odd: Oddities) -> None:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        for line in lines:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                odd["invalid_utf8"] += 1


def read_blocks(stream: IO[bytes], odd: Oddities, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Blocks of whole lines, each ending with a newline but the last; memory stays bounded.

    A line without an end in sight keeps its first MAXIMUM_LINE_BYTES; its rest is read over.
    """
    pending = b""
    skipping = False
    while chunk := _gather(stream, size):
        cut = chunk.rfind(b"\n") + 1
        if skipping:
            # The rest of a line whose beginning was told already.
            start = chunk.find(b"\n") + 1
            if not start:
                continue
            skipping = False
            head, rest = chunk[start:cut], chunk[cut:]
        elif cut:
            head, rest = pending + chunk[:cut], chunk[cut:]
            pending = b""
        else:
            head, rest = b"", pending + chunk
        if head:
            yield head
        pending = rest
        if len(pending) > MAXIMUM_LINE_BYTES:
            odd["long"] += 1
            yield pending[:MAXIMUM_LINE_BYTES] + b"\n"
            pending, skipping = b"", True
    if pending:
        odd["unterminated"] += 1
        yield pending


def _gather(stream: IO[bytes], size: int) -> bytes:
    """Up to ``size`` bytes; from a pipe, what comes within a moment of the first. b"": the end."""
    if not isinstance(stream, io.FileIO):
        return stream.read(size)
    parts: list[bytes] = []
    left, deadline = size, 0.0
    while left > 0:
        if parts:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([stream], [], [], wait)[0]:
                break
        part = stream.read(left)
        if not part:
            break
        if not parts:
            deadline = time.monotonic() + _GATHER_SECONDS
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def open_log(path: Path | str) -> IO[bytes]:
    """A log as bytes: ``-`` is stdin; ``.gz`` and ``.zst`` are unpacked on the way.

    Raises InputError: it cannot be opened.
    """
    if str(path) == "-":
        return open(0, "rb", buffering=0, closefd=False)
    path = Path(path)
    try:
        if path.suffix == ".gz":
            unpacked: IO[bytes] = gzip.open(path, "rb")  # type: ignore[assignment]  # noqa: SIM115
            return unpacked
        if path.suffix == ".zst":
            import zstandard

            packed = path.open("rb")
            reader: Any = zstandard.ZstdDecompressor().stream_reader(
                packed, read_across_frames=True, closefd=True
            )
            return io.BufferedReader(reader, 1 << 20)
        return path.open("rb")
    except OSError as error:
        raise InputError(
            "the log cannot be opened", where=str(path), got=error.strerror or str(error)
        ) from error
