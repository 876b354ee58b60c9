"""Dresses: the form in which some collector ships a log's lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np

from training.train_failure_rca.corpus.messages import DraftLine, LabelledLine
from training.train_failure_rca.corpus.slots import Slots, pick

# Shares of the forms for a job's own output.
FORMS = {
    "plain": 0.36,
    "timestamp": 0.17,
    "json": 0.14,
    "ranks": 0.21,
    "colour": 0.06,
    "progress-bar": 0.06,
}
_JSON_KEYS = ("message", "log", "msg")
_MERGED_SHARE = 0.35
_BAD = re.compile(
    r"[Ee]rror|ERR|[Ff]ail|FAIL|Traceback|^  File|^ {4}\S|refused|denied|错误|失败|异常"
)
_DAEMON = re.compile(r"[\w.-]+\[\d+\]: ")
_RED, _YELLOW, _GREEN, _END = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


class _Clock:
    """Runs on from line to line, so that a log's times never go back."""

    def __init__(self, generator: np.random.Generator, start: datetime) -> None:
        self._generator = generator
        self.now = start
        self.uptime = float(generator.uniform(50, 9_000_000))

    def tick(self) -> datetime:
        step = float(self._generator.exponential(1.5))
        self.now += timedelta(seconds=step)
        self.uptime += step
        return self.now


Prefix = Callable[[DraftLine], str]


def choose_form(generator: np.random.Generator) -> str:
    return str(generator.choice(list(FORMS), p=list(FORMS.values())))


def dress(
    generator: np.random.Generator, lines: Sequence[DraftLine], form: str, slots: Slots
) -> tuple[LabelledLine, ...]:
    """The lines as shipped in ``form`` (a key of FORMS, "dmesg" or "describe").

    A kernel's lines carry the kernel's own prefix in every form.
    """
    clock = _Clock(generator, slots.start)
    kernel = _kernel_prefix(generator, clock, slots)
    prefixed = [
        _with(line, _of_daemon(line, kernel(line))) if line.program == "kernel" else line
        for line in lines
    ]
    dressed = _DRESSES.get(form, _plain)(generator, prefixed, clock, slots)
    return tuple(dressed)


def _of_daemon(line: DraftLine, prefix: str) -> str:
    """A daemon's line in the kernel's log names the daemon where others name the kernel."""
    if not line.text or not _DAEMON.match(line.text):
        return prefix if line.text else ""
    head, kernel, _ = prefix.partition("kernel: ")
    return head if kernel else prefix


def _with(line: DraftLine, prefix: str) -> DraftLine:
    return DraftLine(
        prefix + line.text,
        line.labels,
        line.decisive,
        line.program,
        line.message,
        line.rank,
        line.progress,
    )


def _sounds_bad(text: str) -> bool:
    """As a logger sees it; whether the line is decisive must not show in its dress."""
    return _BAD.search(text) is not None


def _plain(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    for line in lines:
        yield LabelledLine(line.text, line.labels)


def _timestamped(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    host, level = slots.fill("{host}"), pick(generator, ("INFO", "ERROR", ""))
    process = int(generator.integers(200, 90_000))
    styles: tuple[tuple[Callable[[datetime], str], bool], ...] = (
        (lambda t: f"{t:%Y-%m-%d %H:%M:%S},{t.microsecond // 1000:03d} {level} ", True),
        (lambda t: f"[{t:%Y-%m-%d %H:%M:%S}] ", True),
        (lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}789Z stdout F ", False),
        (lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}123Z stderr F ", False),
        (lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ} ", False),
        (lambda t: f"{t:%b %d %H:%M:%S} {host} train[{process}]: ", False),
        (lambda t: f"{t:%m/%d %H:%M:%S} - trainer - {level} - ", True),
        (lambda t: f"{t:%Y年%m月%d日 %H:%M:%S} ", False),
    )
    style, only_first = styles[generator.integers(len(styles))]
    # Python's logging dates a message, a container's runtime each of its lines.
    message = -1
    for line in lines:
        dated = not only_first or line.message != message
        message = line.message
        yield LabelledLine((style(clock.tick()) if dated else "") + line.text, line.labels)


def _json_lines(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    key = pick(generator, _JSON_KEYS)
    kind = int(generator.integers(4))
    merged = generator.random() < _MERGED_SHARE
    host = slots.fill("{host}")
    ascii_only = bool(generator.random() < 0.3)
    for _, group in groupby(lines, key=lambda line: line.message if merged else id(line)):
        together = list(group)
        text = "\n".join(line.text for line in together)
        labels = frozenset[str]().union(*(line.labels for line in together))
        time = f"{clock.tick():%Y-%m-%dT%H:%M:%S.%f}Z"
        level = "error" if any(_sounds_bad(line.text) for line in together) else "info"
        documents: tuple[dict[str, object], ...] = (
            {key: text},
            {key: text if key != "log" else text + "\n", "stream": "stderr", "time": time},
            {"ts": time, "level": level, key: text},
            {"@timestamp": time, "host": host, "rank": together[0].rank, key: text},
        )
        yield LabelledLine(json.dumps(documents[kind], ensure_ascii=ascii_only), labels)


def _ranked(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    pod, address = slots.fill("{pod}"), slots.fill("{ip}")
    first_process = int(generator.integers(900, 90_000))
    stem = pod.rsplit("-", 1)[0]
    styles: tuple[Prefix, ...] = (
        lambda line: f"[rank{line.rank}]: ",
        lambda line: f"{line.rank}: ",
        lambda line: f"worker-{line.rank} | ",
        lambda line: f"[1,{line.rank}]<{'stderr' if _sounds_bad(line.text) else 'stdout'}>:",
        lambda line: f"(RayTrainWorker pid={first_process + line.rank}, ip={address}) ",
        lambda line: f"[default{line.rank}]:",
        lambda line: f"{stem}-{line.rank}: ",
        lambda line: f"[{pod}] [rank {line.rank}] ",
        lambda line: f"[{line.rank // 8}:{line.rank % 8}] ",
        lambda line: f"[pod/{stem}-{line.rank}/pytorch] ",
    )
    style = styles[generator.integers(len(styles))]
    for line in lines:
        outside = line.program != "job"
        yield LabelledLine(line.text if outside else style(line) + line.text, line.labels)


def _coloured(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    whole = generator.random() < 0.5
    for line in lines:
        mild = _YELLOW if "arn" in line.text else _GREEN
        colour = _RED if _sounds_bad(line.text) else mild
        head, blank, rest = line.text.partition(" ")
        if not line.text.strip() or (colour == _GREEN and generator.random() < 0.6):
            yield LabelledLine(line.text, line.labels)
        elif whole or not head:
            yield LabelledLine(f"{colour}{line.text}{_END}", line.labels)
        else:
            yield LabelledLine(f"{colour}{head}{_END}{blank}{rest}", line.labels)


def _progress_bar(
    generator: np.random.Generator, lines: Sequence[DraftLine], clock: _Clock, slots: Slots
) -> Iterator[LabelledLine]:
    for progress, group in groupby(lines, key=lambda line: line.progress):
        if progress:
            yield LabelledLine("\r".join(line.text for line in group))
        else:
            yield from (LabelledLine(line.text, line.labels) for line in group)


def _kernel_prefix(generator: np.random.Generator, clock: _Clock, slots: Slots) -> Prefix:
    host = slots.fill("{host}")

    def uptime(line: DraftLine) -> str:
        clock.tick()
        return f"[{clock.uptime:12.6f}] "

    styles: tuple[Prefix, ...] = (
        uptime,
        uptime,
        lambda line: f"[{clock.tick():%a %b %d %H:%M:%S %Y}] ",
        lambda line: f"{clock.tick():%b %d %H:%M:%S} {host} kernel: ",
        lambda line: f"{clock.tick():%b %d %H:%M:%S} {host} kernel: [{clock.uptime:.6f}] ",
        lambda line: (
            f"kern  :{'err ' if _sounds_bad(line.text) else 'info'}  : [{clock.uptime:.6f}] "
        ),
        lambda line: "",
    )
    return styles[generator.integers(len(styles))]


_DRESSES = {
    "timestamp": _timestamped,
    "json": _json_lines,
    "ranks": _ranked,
    "colour": _coloured,
    "progress-bar": _progress_bar,
}
