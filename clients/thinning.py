"""Makes a huge log small enough to send: head, tail, and error-like lines with their neighbours.

Line numbers survive: a thinned log carries a table from its lines to the original's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST_LOG_BYTES = 20 << 20
_HEAD_LINES = 2_000
_TAIL_LINES = 20_000
_NEIGHBOURS = 3
_LONGEST_LINE_BYTES = 8_192
_ERROR_LIKE = re.compile(
    rb"error|fail|fatal|exception|traceback|abort|killed|denied|refused|timed? ?out|timeout|oom"
    rb"|out of memory|xid|nccl|ecc|no space|quota|unable|cannot|segfault|core dump|exit code"
    rb"|link down|unhealthy|" + "错误|失败|异常|超时|不足|拒绝|终止|掉卡".encode(),
    re.IGNORECASE,
)


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
    lines = [line[:_LONGEST_LINE_BYTES] for line in log.split(b"\n")]
    # Error-like lines first, then the tail, then the head: what a cause needs most goes in first.
    chosen: set[int] = set()
    left = largest_bytes
    for index in _by_importance(lines):
        if index in chosen:
            continue
        left -= len(lines[index]) + 1
        if left < 0:
            break
        chosen.add(index)
    kept = sorted(chosen)
    return ThinnedLog(b"\n".join(lines[i] for i in kept), [i + 1 for i in kept])


def _by_importance(lines: list[bytes]) -> list[int]:
    count = len(lines)
    seen: set[bytes] = set()
    order: list[int] = []
    for index, line in enumerate(lines):
        if not _ERROR_LIKE.search(line):
            continue
        # The same complaint ten thousand times is evidence once.
        form = re.sub(rb"\d+", b"0", line)
        if form in seen:
            continue
        seen.add(form)
        order.extend(range(max(0, index - _NEIGHBOURS), min(count, index + _NEIGHBOURS + 1)))
    order.extend(range(count - 1, max(-1, count - 1 - _TAIL_LINES), -1))
    order.extend(range(min(count, _HEAD_LINES)))
    return order
