"""A log as it was sent to lines of text: JSON unfolded, colours and progress bars taken off.

Runs inside tritonserver: stdlib only. Every line keeps the number it has in the log as sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from training.train_failure_rca.suspicion import is_suspicious

# Longer ones are cut into pieces of one number: a window takes about as much.
LONGEST_LINE = 300
_MESSAGE_KEYS = ("message", "log", "msg", "text")
# Where loggers put a traceback beside the message.
_DETAIL_KEYS = ("exc_info", "exception", "traceback", "stack_trace", "stack", "error")
_NESTED = 2
# Colours and cursor moves (CSI), titles and links (OSC), and the short escapes.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Of a line that was overwritten more often, only its end and what sounds like a failure.
_MOST_OVERWRITTEN = 2_000
# One endless line is cut into at most so many pieces, half from either end.
_MOST_PIECES = 40_000
_CRI = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) std(?:out|err) [FP] ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """``number`` counts from 1 in the log as it was sent; ``text`` is unwrapped from JSON."""

    number: int
    text: str


def read_lines(log: str) -> list[LogLine]:
    """Every line that is not blank, in order; one of JSON or without an end gives several."""
    if "\x1b" in log:
        log = _ANSI.sub("", log)
    lines: list[LogLine] = []
    for number, raw in enumerate(log.split("\n"), start=1):
        text = raw.rstrip()
        if not text:
            continue
        if len(text) <= LONGEST_LINE and "\r" not in text and "{" not in text:
            lines.append(LogLine(number, text))
            continue
        for part in _unfold(text):
            lines.extend(LogLine(number, piece) for piece in _pieces(part))
    if _CONTROL.search(log):
        lines = [LogLine(line.number, _CONTROL.sub(" ", line.text)) for line in lines]
        lines = [line for line in lines if line.text.strip()]
    return lines


def _unfold(line: str) -> list[str]:
    """The lines that one physical line stands for."""
    if "\r" in line:
        return [part for text in _overwritten(line) for part in _unfold(text)]
    body = _CRI.sub("", line)
    if body.startswith("{") and body.endswith("}"):
        return _from_json(body, _NESTED) or [line]
    return [line]


def _overwritten(line: str) -> list[str]:
    """What stood last in a line that was overwritten, after whatever complained in between."""
    parts = [part.rstrip() for part in line.split("\r")]
    parts = [part for part in parts if part.strip()]
    middle = parts[:-1][-_MOST_OVERWRITTEN:]
    return [part for part in middle if is_suspicious(part)] + parts[-1:]


def _from_json(text: str, depth: int) -> list[str]:
    """The message of a logger's or a container's JSON; [] where it has none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    message = next((document[k] for k in _MESSAGE_KEYS if isinstance(document.get(k), str)), None)
    details = [document[k] for k in _DETAIL_KEYS if isinstance(document.get(k), str)]
    if message is None and not details:
        return []
    lines = []
    for part in ([message] if message is not None else []) + details:
        inner = part.strip()
        if depth and inner.startswith("{") and inner.endswith("}"):
            lines += _from_json(inner, depth - 1) or [part]
        else:
            lines += [piece for piece in _ANSI.sub("", part).splitlines() if piece.strip()]
    return [line.rstrip() for line in lines]


def _pieces(line: str) -> list[str]:
    """The line, or its pieces of at most LONGEST_LINE characters, cut at blanks where it can."""
    if len(line) <= LONGEST_LINE:
        return [line] if line.strip() else []
    pieces: list[str] = []
    start = 0
    while start < len(line):
        stop = min(start + LONGEST_LINE, len(line))
        if stop < len(line):
            blank = line.rfind(" ", start + LONGEST_LINE // 2, stop)
            stop = blank if blank > 0 else stop
        pieces.append(line[start:stop])
        start = stop
    if len(pieces) > _MOST_PIECES:
        half = _MOST_PIECES // 2
        pieces = pieces[:half] + pieces[-half:]
    return [piece for piece in pieces if piece.strip()]
