"""Chooses what of a log can hold a cause, and cuts it into windows the classifier can take.

Runs inside tritonserver: stdlib and training.text.text_batch only. A log of 100,000 lines is mostly
repeats; each form of a line is kept once, where it came first, so the earliest cause stays the
earliest. Windows begin where complaints begin, not after so many tokens from the top: what a window
shows does not depend on how much healthy output stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.text.text_batch import MaskedTokenizer
from training.train_failure_rca.reading import LogLine, read_lines
from training.train_failure_rca.signatures import with_hint
from training.train_failure_rca.suspicion import is_failure, is_frame, is_suspicious

LARGEST_WINDOWS = 64
_HEAD_LINES = 30
_TAIL_LINES = 120
_NEIGHBOURS = 2
_LARGEST_KEPT_LINES = 900
# Lines that differ in nothing but numbers: the first so many can say something new.
_MOST_OF_A_FORM = 64
# A report of progress says nothing new whatever its numbers, even where it speaks of memory.
_PROGRESS = re.compile(
    r"\bloss|\biter|\bsteps?\b|\bepoch|\blr\b|it/s|s/it|/s\b|\btokens|[%━#█]\||损失|第 ?\d+ ?步|轮",
    re.IGNORECASE,
)
# The job is over, and well.
_DONE = re.compile(
    r"(?:training|run|job|epoch|evaluation|all) .{0,20}(?:finish|complet|done|succe)|\bsaved\b"
    r"|exit code 0\b|\bfinished\b|succeeded|训练(?:完成|结束)|已保存",
    re.IGNORECASE,
)
_REPORTS_OF_LIFE = 2
_OVERLAP_LINES = 2
# A cluster of complaints ends where so many lines in a row are calm.
_CALM_LINES = 3
_DIGITS = re.compile(r"\d+")
_LONG_DIGITS = re.compile(r"\d{4,}|0x[0-9a-fA-F]+")
_TIMES = re.compile(r"\d+:\d\d:\d\d(?:[.,]\d+)?")
# "[rank3]: ", "3: ", "worker-3 | ", "[1,3]<stderr>:", "[default3]:": who says it, not what.
_RANK = re.compile(
    r"^(?:\[(?:rank|default)?\s?(\d{1,4})\]:?|\[\d,(\d{1,4})\]<\w+>:|(\d{1,4}):"
    r"|[\w.-]*-(\d{1,4})(?: \||:)|\(\w+ pid=(\d+)[^)]*\)"
    r"|\[[^\]]*-(\d+)(?:/\w+)?\](?: \[rank \d+\])?|\[\d+:(\d+)\])\s"
)


@dataclass(frozen=True)
class Window:
    """``text``: its lines as the model reads them."""

    lines: tuple[LogLine, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A line that is read. ``place``: its position among the log's distinct lines."""

    line: LogLine
    place: int
    suspicious: bool

    @property
    def shown(self) -> str:
        """The line as the model reads it."""
        return with_hint(self.line.text) if self.suspicious else self.line.text


def distinct_lines(lines: Sequence[LogLine]) -> list[Kept]:
    """The first line of each form, with whether it is suspicious."""
    seen: set[str] = set()
    judged: dict[str, bool] = {}
    several: set[str] = set()
    counts: dict[str, int] = {}
    kept: list[Kept] = []
    for line in lines:
        rough = _DIGITS.sub("0", line.text)
        count = counts[rough] = counts.get(rough, 0) + 1
        if count == 1:
            judged[rough] = is_suspicious(line.text)
            if judged[rough] and (is_failure(line.text) or not _PROGRESS.search(line.text)):
                several.add(rough)
        suspicious = judged[rough]
        if count > (_MOST_OF_A_FORM if rough in several else 1):
            continue
        form = rough
        if suspicious:
            # Xid 13 and Xid 79 are not the same complaint; step 13 and step 79 are. Ranks that
            # complain alike count once: the first of them.
            form = _LONG_DIGITS.sub("0", _TIMES.sub("", _RANK.sub("", line.text)))
        if form not in seen:
            seen.add(form)
            kept.append(Kept(line, len(kept), suspicious))
    return kept


def keep_lines(lines: Sequence[LogLine]) -> list[Kept]:
    """First of each form; of a long log only its head, its tail, and what is suspicious."""
    distinct = distinct_lines(lines)
    count = len(distinct)
    if count <= _HEAD_LINES + _TAIL_LINES:
        return distinct
    chosen = set(range(_HEAD_LINES)) | set(range(count - _TAIL_LINES, count))
    for place in _by_weight(distinct):
        if len(chosen) > _LARGEST_KEPT_LINES:
            break
        chosen.update(range(max(0, place - _NEIGHBOURS), min(count, place + _NEIGHBOURS + 1)))
    return [distinct[place] for place in sorted(chosen)]


def _by_weight(distinct: Sequence[Kept]) -> list[int]:
    """Suspicious places: each rank's first failure, then failures, then the rest; in order."""
    ranks: set[str] = set()
    first, failures, others = [], [], []
    for kept in distinct:
        if not kept.suspicious:
            continue
        if not is_failure(kept.line.text):
            others.append(kept.place)
            continue
        rank = _rank_of(kept.line.text)
        (failures if rank in ranks else first).append(kept.place)
        ranks.add(rank)
    return first + failures + others


def _rank_of(text: str) -> str:
    """Who says the line: a rank's number, or nothing."""
    found = _RANK.match(text)
    return next((group for group in found.groups() if group), "") if found else ""


def make_windows(kept: Sequence[Kept], tokenizer: MaskedTokenizer) -> list[Window]:
    """Consecutive lines, each window at most ``max_tokens`` tokens.

    Over LARGEST_WINDOWS the ones that sound most like a failure are kept, in order.
    """
    room = tokenizer.max_tokens - 2
    shown = [one.shown for one in kept]
    masked = [tokenizer.mask(text) for text in shown]
    sizes = [min(room, max(1, len(ids) - 2)) for ids in tokenizer.encode(masked)]
    windows: list[tuple[int, int]] = []
    for start, end in _clusters(kept):
        while start < end:
            stop, tokens = start, 0
            while stop < end and (stop == start or tokens + sizes[stop] <= room):
                tokens += sizes[stop]
                stop += 1
            windows.append((start, stop))
            if stop >= end:
                break
            # The line above an error tells which of two errors it is.
            back = stop
            while (
                stop - back < _OVERLAP_LINES
                and back - 1 > start
                and (sum(sizes[back - 1 : stop]) <= room // 2)
            ):
                back -= 1
            start = back
    # Where nothing sounds like a cause there is none; the log's end is read all the same.
    loud = [(a, b) for a, b in windows if any(one.suspicious for one in kept[a:b])]
    windows = loud if loud and loud[-1] == windows[-1] else loud + windows[-1:]
    if len(windows) > LARGEST_WINDOWS:
        weights = [
            sum(one.suspicious + 3 * is_failure(one.line.text) for one in kept[a:b])
            for a, b in windows
        ]
        best = sorted(range(len(windows)), key=lambda i: (-weights[i], i))[:LARGEST_WINDOWS]
        windows = [windows[index] for index in sorted(best)]
    return [Window(tuple(one.line for one in kept[a:b]), "\n".join(shown[a:b])) for a, b in windows]


def _clusters(kept: Sequence[Kept]) -> list[tuple[int, int]]:
    """Stretches (start, end) of ``kept`` that begin with a complaint after calm, or a gap."""
    borders = [0]
    calm = _CALM_LINES
    for index, one in enumerate(kept):
        loud = one.suspicious or is_frame(one.line.text)
        gap = index and one.place != kept[index - 1].place + 1
        if index and (gap or (loud and calm >= _CALM_LINES)) and borders[-1] != index:
            borders.append(index)
        calm = 0 if loud else calm + 1
    return list(zip(borders, [*borders[1:], len(kept)], strict=True)) if kept else []


def windows_of(log: str, tokenizer: MaskedTokenizer) -> list[Window]:
    """The whole reader: log text to windows."""
    return make_windows(keep_lines(read_lines(log)), tokenizer)


def goes_on(lines: Sequence[LogLine]) -> bool:
    """Whether the job outlived its last complaint: its log ends with reports of progress.

    Of several ranks, the one that complained must be the one that reports.
    """
    reports: list[str] = []
    for line in reversed(lines):
        if is_suspicious(line.text) and not _DONE.search(line.text):
            speaker = _rank_of(line.text)
            return sum(rank == speaker for rank in reports) >= _REPORTS_OF_LIFE
        if _PROGRESS.search(line.text) or _DONE.search(line.text):
            reports.append(_rank_of(line.text))
    return False


def says_it_failed(log: str) -> bool:
    """Whether the log itself reports a failure, whatever the cause."""
    return any(is_failure(one.line.text) for one in distinct_lines(read_lines(log)))
