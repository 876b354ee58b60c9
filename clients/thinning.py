"""Makes a huge log small enough to send: head, tail, and error-like lines with their neighbours.

Line numbers survive: a thinned log carries a table from its lines to the original's.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from dataclasses import dataclass

LARGEST_LOG_BYTES = 20 << 20
_HEAD_LINES = 2_000
_TAIL_LINES = 20_000
_NEIGHBOURS = 3
_LONGEST_LINE_BYTES = 8_192
_BLOCK_BYTES = 1 << 20
# A log that complains in ever new words must not crowd out how it ended.
_ERROR_SHARE = 0.75
_ERROR_LIKE = re.compile(
    rb"error|fail|fatal|exception|traceback|abort|killed|denied|refused|timed? ?out|timeout|oom"
    rb"|out of memory|xid|nccl|ecc|no space|quota|unable|cannot|segfault|core dump|exit code"
    rb"|link down|unhealthy|" + "错误|失败|异常|超时|不足|拒绝|终止|掉卡".encode()
)
"""Of lower-case text: the regex engine's IGNORECASE is fifteen times slower."""


@dataclass(frozen=True)
class ThinnedLog:
    """``line_numbers[i]`` is the original number (from 1) of line i+1; empty = nothing was cut."""

    text: bytes
    line_numbers: list[int]

    def original(self, line_number: int) -> int:
        if not self.line_numbers or not 1 <= line_number <= len(self.line_numbers):
            return line_number
        return self.line_numbers[line_number - 1]


def thin(log: bytes, largest_bytes: int = LARGEST_LOG_BYTES) -> ThinnedLog:
    """The log itself when small enough, else the lines that can hold a cause, in order."""
    if len(log) <= largest_bytes:
        return ThinnedLog(log, [])
    thinner = LogThinner(largest_bytes)
    thinner.feed(log)
    return thinner.finish()


class LogThinner:
    """``thin`` for a log that comes in pieces, cut anywhere; holds about 3 × ``largest_bytes``.

    Error-like lines go in first (each complaint once, up to three quarters), then the tail, then
    the head.
    """

    def __init__(self, largest_bytes: int = LARGEST_LOG_BYTES) -> None:
        self._largest_bytes = largest_bytes
        self.size_bytes = 0
        """Fed so far."""
        self._whole: list[bytes] | None = []
        self._pending = b""
        self._skipping = False
        self._lines = 0
        self._head: list[bytes] = []
        self._tail: deque[tuple[int, bytes]] = deque()
        self._tail_lines = self._tail_bytes = 0
        self._errors = _ErrorLines(int(largest_bytes * _ERROR_SHARE))

    def feed(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self._whole is not None:
            self._whole.append(piece)
            if self.size_bytes <= self._largest_bytes:
                return
            pieces, self._whole = self._whole, None
        else:
            pieces = [piece]
        for one in pieces:
            for start in range(0, len(one), _BLOCK_BYTES):
                self._cut_into_lines(one[start : start + _BLOCK_BYTES])

    def finish(self) -> ThinnedLog:
        """What is kept. Feed nothing more."""
        if self._whole is not None:
            return ThinnedLog(b"".join(self._whole), [])
        # Whatever follows the last line's end is a line too, even when it is empty.
        self._read(self._pending + b"\n")
        kept = self._errors.kept()
        left = self._largest_bytes - self._errors.size_bytes
        first = self._lines - self._tail_lines
        tail = [line for _, block in self._tail for line in block[:-1].split(b"\n")]
        enough = max(first, self._lines - _TAIL_LINES)
        for index in range(self._lines - 1, enough - 1, -1):
            left = _keep(kept, index, tail[index - first], left)
        for index, line in enumerate(self._head):
            left = _keep(kept, index, line, left)
        order = sorted(kept)
        return ThinnedLog(b"\n".join(kept[i] for i in order), [i + 1 for i in order])

    def _cut_into_lines(self, piece: bytes) -> None:
        """Whole lines go on; of one that is longer than a line may be, only its beginning."""
        if self._skipping:
            end = piece.find(b"\n")
            if end < 0:
                return
            piece, self._skipping = piece[end:], False
        block = self._pending + piece
        cut = block.rfind(b"\n") + 1
        self._pending = block[cut:]
        if len(self._pending) > _LONGEST_LINE_BYTES:
            self._pending, self._skipping = self._pending[:_LONGEST_LINE_BYTES], True
        if cut:
            self._read(_without_long_lines(block[:cut]))

    def _read(self, block: bytes) -> None:
        count = block.count(b"\n")
        if len(self._head) < _HEAD_LINES:
            self._head += block.split(b"\n", _HEAD_LINES)[:-1][: _HEAD_LINES - len(self._head)]
        self._errors.read(block, self._lines)
        self._tail.append((count, block))
        self._lines += count
        self._tail_lines += count
        self._tail_bytes += len(block)
        while (
            self._tail_lines - self._tail[0][0] >= _TAIL_LINES
            or self._tail_bytes - len(self._tail[0][1]) >= self._largest_bytes
        ):
            dropped, block = self._tail.popleft()
            self._tail_lines -= dropped
            self._tail_bytes -= len(block)


class _ErrorLines:
    """Error-like lines with their neighbours, first come first kept."""

    def __init__(self, largest_bytes: int) -> None:
        self._left = largest_bytes
        self.size_bytes = 0
        self._is_full = False
        # Ascending, and compact: millions of short lines would be objects of three times the size.
        self._numbers = array("Q")
        self._ends = array("Q")
        self._text = bytearray()
        self._last = -1
        self._forms: set[int] = set()
        self._before: list[bytes] = []
        self._owed = 0

    def kept(self) -> dict[int, bytes]:
        """{index of the line, from 0: the line}"""
        start, lines = 0, {}
        for number, end in zip(self._numbers, self._ends, strict=True):
            lines[number] = bytes(self._text[start:end])
            start = end
        return lines

    def read(self, block: bytes, first: int) -> None:
        """Whole lines, the first of which has the index ``first``."""
        if self._is_full:
            return
        owed, self._owed = self._owed, 0
        self._take_following(block, 0, first, owed)
        number, counted, position = first, 0, 0
        lower = block.lower()
        while not self._is_full and (match := _ERROR_LIKE.search(lower, position)):
            start = block.rfind(b"\n", 0, match.start()) + 1
            position = block.index(b"\n", match.end()) + 1
            # The same complaint ten thousand times is evidence once.
            form = hash(re.sub(rb"\d+", b"0", block[start : position - 1]))
            if form in self._forms:
                continue
            self._forms.add(form)
            number += block.count(b"\n", counted, start)
            counted = start
            self._take_preceding(block, start, number)
            self._take_following(block, start, number, _NEIGHBOURS + 1)
        self._before = (self._before + block[:-1].rsplit(b"\n", _NEIGHBOURS)[-_NEIGHBOURS:])[
            -_NEIGHBOURS:
        ]

    def _take_preceding(self, block: bytes, start: int, number: int) -> None:
        lines: list[bytes] = []
        end = start - 1
        while len(lines) < _NEIGHBOURS and end >= 0:
            begin = block.rfind(b"\n", 0, end) + 1
            lines.append(block[begin:end])
            end = begin - 1
        lines = [*self._before, *reversed(lines)][-_NEIGHBOURS:]
        for offset, line in enumerate(lines):
            self._take(number - len(lines) + offset, line)

    def _take_following(self, block: bytes, start: int, number: int, count: int) -> None:
        for offset in range(count):
            end = block.find(b"\n", start)
            if end < 0:
                self._owed = count - offset
                return
            self._take(number + offset, block[start:end])
            start = end + 1

    def _take(self, number: int, line: bytes) -> None:
        if number <= self._last or self._is_full:
            return
        size = len(line) + 1
        if size > self._left:
            self._is_full = True
            return
        self._left -= size
        self.size_bytes += size
        self._last = number
        self._numbers.append(number)
        self._text += line
        self._ends.append(len(self._text))


def _keep(kept: dict[int, bytes], index: int, line: bytes, left: int) -> int:
    """Bytes left after it; below zero: it was too much, and so is whatever follows."""
    if index in kept or left < 0:
        return left
    left -= len(line) + 1
    if left >= 0:
        kept[index] = line
    return left


def _without_long_lines(block: bytes) -> bytes:
    start = 0
    while start < len(block):
        end = block.rfind(b"\n", start, start + _LONGEST_LINE_BYTES + 1)
        if end < 0:
            lines = block.split(b"\n")
            return b"\n".join(line[:_LONGEST_LINE_BYTES] for line in lines)
        start = end + 1
    return block
