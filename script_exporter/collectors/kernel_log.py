"""The kernel log of this machine or of a recording, and counts of its lines that outlive it.

Read is the first that is there: ``dev/kmsg``, ``var/log/dmesg``, ``var/log/kern.log``. Understood
are the record format of /dev/kmsg, dmesg with and without ``-T`` or ``--raw``, and syslog.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from metric_text import complain, read_text

_RECORD = re.compile(r"(\d+),(\d+),(\d+),[^;]*;(.*)")
_DMESG = re.compile(r"(?:<\d+>)?\[\s*(\d+\.\d+)\]\s?(.*)")
_DMESG_DATED = re.compile(r"\[([A-Z][a-z]{2} [A-Z][a-z]{2}\s+\d+ [\d:]{8} \d{4})\]\s?(.*)")
_SYSLOG = re.compile(
    r"((?:[A-Z][a-z]{2}\s+\d+ [\d:]{8})|(?:\d{4}-\d\d-\d\dT\S+)) \S+ kernel: "
    r"(?:\[\s*[\d.]+\]\s?)?(.*)"
)
_KINDS = 500
"""Different events that are kept; a log that makes up more is not believed."""


class Line(NamedTuple):
    """``mark`` tells a line from every other of the same boot, even one of the same words.

    ``seconds``: since the epoch, ``uptime_seconds``: since boot; NaN where nothing tells.
    """

    mark: str
    text: str
    seconds: float
    uptime_seconds: float


def read_kernel_log(root: Path) -> list[Line]:
    """Oldest first; empty, with a complaint, where none can be read."""
    device = root / "dev/kmsg"
    booted = _boot_time(root)
    try:
        if device.is_char_device():
            return list(_parsed(_records(device), booted))
        for name in ("dev/kmsg", "var/log/dmesg", "var/log/kern.log"):
            if (root / name).is_file():
                text = (root / name).read_text("utf-8", "replace")
                return list(_parsed(text.splitlines(), booted))
    except OSError as error:
        complain(f"kernel log: {error}")
        return []
    complain(f"no kernel log below {root}")
    return []


def _records(device: Path) -> Iterator[str]:
    """Each read of /dev/kmsg gives one record; at its end it would block."""
    descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(descriptor, 8192)
            except BlockingIOError:
                return
            except OSError as error:
                # The ring overtook us: the next read goes on with the oldest that is left.
                if error.errno == errno.EPIPE:
                    continue
                raise
            yield record.decode("utf-8", "replace").split("\n", 1)[0]
    finally:
        os.close(descriptor)


def _parsed(lines: Iterable[str], booted: float) -> Iterator[Line]:
    seen: dict[tuple[str, str], int] = {}
    for line in lines:
        found = _RECORD.match(line)
        if found:
            uptime = int(found[3]) / 1e6
            yield Line(found[2], found[4], booted + uptime, uptime)
            continue
        found = _DMESG.match(line)
        uptime = math.nan
        if found:
            uptime = float(found[1])
            seconds = booted + uptime
        else:
            found = _DMESG_DATED.match(line) or _SYSLOG.match(line)
            if not found:
                continue
            seconds = _stamp_seconds(found[1])
        stamp, text = found[1], found[2]
        # Two equal lines of one stamp are two events.
        again = seen[stamp, text] = seen.get((stamp, text), 0) + 1
        digest = hashlib.sha1(text.encode("utf-8", "replace")).hexdigest()[:8]
        yield Line(f"{stamp}/{digest}/{again}", text, seconds, uptime)


def _boot_time(root: Path) -> float:
    for line in read_text(root / "proc/stat").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return math.nan


def _stamp_seconds(stamp: str) -> float:
    """Local time, as dmesg -T and syslog write it; a syslog stamp without a year is of the last 12
    months."""
    now = datetime.datetime.now().astimezone()
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
    with contextlib.suppress(ValueError):
        return datetime.datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").timestamp()
    with contextlib.suppress(ValueError):
        dated = datetime.datetime.strptime(f"{now.year} {stamp}", "%Y %b %d %H:%M:%S").timestamp()
        # A log of December, read in January.
        return dated if dated < now.timestamp() + 86_400 else dated - 365 * 86_400
    return math.nan


class Event(NamedTuple):
    """``seconds``: of the newest one; where no line tells, when it was first counted."""

    labels: tuple[str, ...]
    times: int
    seconds: float


class EventCounts:
    """Counts of events that only grow within a boot, whatever the log has forgotten since.

    ``state``: a folder, or None to count what the log still holds.
    """

    def __init__(self, name: str, root: Path, state: Path | None) -> None:
        self._file = None if state is None else state / f"{name}.json"
        self._boot = read_text(root / "proc/sys/kernel/random/boot_id")
        self._events: dict[str, list[float]] = {}
        self._marks: list[str] = []
        self._load()

    def add(self, lines: list[Line], events: Mapping[str, tuple[str, ...]]) -> None:
        """events: mark of a line → what it says; lines counted in an earlier run count no more."""
        known = set(self._marks)
        for line in lines:
            labels = events.get(line.mark)
            if labels is None or line.mark in known:
                continue
            key = json.dumps(labels, ensure_ascii=False)
            if key not in self._events and len(self._events) >= _KINDS:
                continue
            seconds = time.time() if math.isnan(line.seconds) else line.seconds
            count, newest = self._events.get(key, (0, 0.0))
            self._events[key] = [count + 1, max(newest, seconds)]
        # What the log has forgotten cannot come again: only marks of lines that are there count.
        self._marks = [line.mark for line in lines if line.mark in events]
        self._save()

    def __iter__(self) -> Iterator[Event]:
        for key, (count, seconds) in sorted(self._events.items()):
            yield Event(tuple(json.loads(key)), int(count), seconds)

    def _load(self) -> None:
        if self._file is None or not self._file.is_file():
            return
        try:
            given = json.loads(self._file.read_text("utf-8"))
            if given["boot"] != self._boot:
                return
            self._events = {
                str(key): [int(count), float(seconds)]
                for key, (count, seconds) in given["events"].items()
            }
            self._marks = [str(mark) for mark in given["marks"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            complain(f"{self._file}: counting anew: {error}")

    def _save(self) -> None:
        if self._file is None:
            return
        content = {"boot": self._boot, "events": self._events, "marks": self._marks}
        new = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
            new.replace(self._file)
        except OSError as error:
            complain(f"{self._file}: {error}")
            with contextlib.suppress(OSError):
                new.unlink()
