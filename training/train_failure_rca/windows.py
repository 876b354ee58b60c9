"""Reads a job's log: what can hold a cause, cut into windows the classifier can take.

Runs inside tritonserver: numpy, stdlib and training.text.text_batch only. A log of 100,000 lines
is mostly repeats; each form of a line is kept once, where it came first, so the earliest cause
stays the earliest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.text.text_batch import MaskedTokenizer

LARGEST_WINDOWS = 64
_HEAD_LINES = 40
_TAIL_LINES = 160
_NEIGHBOURS = 3
_LARGEST_KEPT_LINES = 1_000
_OVERLAP_LINES = 1
_LONGEST_LINE = 600
_WRAPPED_KEYS = ("message", "log", "msg")

# Wide: lines near which a cause may be. Narrow: lines that say that the job failed.
SUSPICIOUS = re.compile(
    r"error|fail|fatal|exception|traceback|abort|killed|denied|refused|timed? ?out|oom|xid|warn"
    r"|out of memory|memory|quota|no space|unable|cannot|can't|not found|no such|mismatch|reset"
    r"|invalid|missing|insufficient|incompatible|unauthorized|forbidden|corrupt|lost|down\b|flap"
    r"|fallen off|bad_alloc|blocked for|exceed|no module|no matching|not permitted|not present"
    r"|conflict|unsupported|unhealthy|unavailable|critical|hang\b|inactive|overrid|times out"
    r"|pressure|not a |don't match|not in "
    r"|unplugged|uncorrect|unrecognized|required|exit code|signal|segfault|core dump|stall|assert"
    r"|错误|失败|异常|超时|不足|拒绝|终止|掉卡|超限|不匹配|损坏|卡死|抖动|已满|不能|不可用|未找到|故障|查询不到|过旧|中断|停止",
    re.IGNORECASE,
)
FAILED = re.compile(
    r"Traceback \(most recent call last\)|\b\w+(?:Error|Exception)\b:|\bFATAL\b|\bFatal\b"
    r"|exit(?:ed)?(?: with)?(?: exit)?[ _]?code:?[ =]*[1-9]|exitcode: -?[1-9]|core dumped"
    r"|Segmentation fault|\bpanic\b|\bKilled\b|Aborted|job .* failed|运行失败|异常退出"
    r"|退出码:? ?[1-9]|[Ee]xit(?:ing)?(?: with)? [Cc]ode:?\s+[1-9]"
    r"|KeyboardInterrupt|SIG(?:KILL|TERM|SEGV|ABRT)\b|\*\*\* (?:JOB|STEP) .* CANCELLED|Preempted\b"
    r"|NodeNotReady|NVRM: Xid|loss is nan|diverged|Exiting run|free\(\): invalid|double free"
    r'|killed by |"level": "(?:fatal|critical)"|ERROR .*(?:stopped|inconsistent)'
    r"|训练停止|终止，原因|训练中断|任务失败|作业失败|崩溃",
)
_DIGITS = re.compile(r"\d+")
_LONG_DIGITS = re.compile(r"\d{4,}|0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class LogLine:
    """``number`` counts from 1 in the log as it was sent; ``text`` is unwrapped from JSON."""

    number: int
    text: str


@dataclass(frozen=True)
class Window:
    lines: tuple[LogLine, ...]

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def read_lines(log: str) -> list[LogLine]:
    """Every line that is not blank. A carriage return (progress bars) ends a line, too."""
    return [
        LogLine(number, _shorten(part))
        for number, raw in enumerate(log.split("\n"), start=1)
        for part in _unwrap(raw).split("\n")
        if part.strip()
    ]


def _unwrap(line: str) -> str:
    line = line.rstrip("\r")
    stripped = line.strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        try:
            document = json.loads(stripped)
        except ValueError:
            return line
        if isinstance(document, dict):
            for key in _WRAPPED_KEYS:
                if isinstance(document.get(key), str):
                    return str(document[key])
    # A progress bar rewrites its line: what stands there in the end is what it said.
    return line.rsplit("\r", 1)[-1]


def _shorten(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2
    return f"{line[:half]} … {line[-half:]}"


def keep_lines(lines: Sequence[LogLine]) -> list[LogLine]:
    """First of each form; of a long log only its head, its tail, and what is suspicious."""
    seen: set[str] = set()
    distinct = []
    for line in lines:
        # Xid 13 and Xid 79 are not the same complaint; step 13 and step 79 are.
        digits = _LONG_DIGITS if SUSPICIOUS.search(line.text) else _DIGITS
        form = digits.sub("0", line.text)
        if form not in seen:
            seen.add(form)
            distinct.append(line)
    if len(distinct) <= _HEAD_LINES + _TAIL_LINES:
        return distinct
    count = len(distinct)
    kept = set(range(_HEAD_LINES)) | set(range(count - _TAIL_LINES, count))
    for index, line in enumerate(distinct):
        if len(kept) > _LARGEST_KEPT_LINES:
            break
        if SUSPICIOUS.search(line.text):
            kept.update(range(max(0, index - _NEIGHBOURS), min(count, index + _NEIGHBOURS + 1)))
    return [distinct[index] for index in sorted(kept)]


def make_windows(lines: Sequence[LogLine], tokenizer: MaskedTokenizer) -> list[Window]:
    """Consecutive lines, each window at most ``max_tokens`` tokens, one line shared by neighbours.

    Over LARGEST_WINDOWS the ones with the most suspicious lines are kept, in order.
    """
    room = tokenizer.max_tokens - 2
    masked = [tokenizer.mask(line.text) for line in lines]
    sizes = [min(room, max(1, len(ids) - 2)) for ids in tokenizer.encode(masked)]
    windows: list[Window] = []
    start = 0
    while start < len(lines):
        stop, tokens = start, 0
        while stop < len(lines) and (stop == start or tokens + sizes[stop] <= room):
            tokens += sizes[stop]
            stop += 1
        windows.append(Window(tuple(lines[start:stop])))
        if stop >= len(lines):
            break
        start = max(start + 1, stop - _OVERLAP_LINES)
    if len(windows) <= LARGEST_WINDOWS:
        return windows
    suspicion = [sum(bool(SUSPICIOUS.search(line.text)) for line in w.lines) for w in windows]
    best = sorted(range(len(windows)), key=lambda i: (-suspicion[i], i))[:LARGEST_WINDOWS]
    return [windows[index] for index in sorted(best)]


def windows_of(log: str, tokenizer: MaskedTokenizer) -> list[Window]:
    """The whole reader: log text to windows."""
    return make_windows(keep_lines(read_lines(log)), tokenizer)


def says_it_failed(log: str) -> bool:
    """Whether the log itself reports a failure, whatever the cause."""
    return FAILED.search(log) is not None
