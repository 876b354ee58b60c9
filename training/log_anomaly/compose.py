"""Fills the vocabulary's messages in, and puts the headers of many systems before them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from training.log_anomaly.vocabulary import (
    GRADES,
    Component,
    Grade,
    Language,
    Message,
    load_components,
)

T = TypeVar("T")

GRADE_SHARES: dict[Grade, float] = {"routine": 0.38, "warning": 0.22, "fault": 0.40}
CHINESE_SHARE = 0.35
# A Chinese line often names its component in English.
_ENGLISH_COMPONENT_SHARE = 0.2
_CHINESE = re.compile(r"[㐀-鿿]")
_SLOT = re.compile(r"\{(\w+)\}")

_NAMES = """
alpha billing-7d9f core edge-router gateway ingest kafka-main ledger mysql-prod node-17 orders rank3
redis-a storage-b train-llm-0 users web-5c6d zeus
"""
_FUNCTIONS = """
start_kernel init_memory send_packet do_commit alloc_page handleRequest rx_loop
"""
_EXCEPTIONS = (
    "IllegalStateException",
    "NullPointerException",
    "IOException: broken pipe",
    "RuntimeError: invalid state",
    "OutOfMemoryError",
    "EOFException",
    "TimeoutException",
    "std::bad_alloc",
)
_CHOICES: dict[str, Sequence[str]] = {
    "name": _NAMES.split(),
    "func": _FUNCTIONS.split(),
    "exc": _EXCEPTIONS,
    "dev": ("sda", "sdb1", "nvme0n1", "md0", "dm-3", "A1", "B2"),
    "nic": ("eth0", "ens3f1", "bond0", "mlx5_0", "ib0"),
    "user": ("root", "alice", "svc_train", "wang", "nobody", "u1042"),
    "host": ("node017", "gpu-a100-12", "db1.example.com", "sn231", "worker-3", "cn0042"),
}
# A level is a hint, not the verdict: each grade also carries levels of the others.
_LEVELS: dict[Grade, tuple[str, ...]] = {
    "routine": ("INFO", "INFO", "DEBUG", "NOTICE", "info", "FATAL"),
    "warning": ("WARN", "WARNING", "INFO", "ERROR", "FATAL"),
    "fault": ("ERROR", "FATAL", "INFO", "CRITICAL", "WARN", "SEVERE", "err"),
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class ComposedLine:
    """A filled-in message. ``header`` + ``body`` is the line as shipped."""

    message: Message
    language: Language
    header: str
    body: str

    @property
    def text(self) -> str:
        return self.header + self.body


class Composer:
    """Draws lines of given messages; the grade first, so that none is rare."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = {
            grade: [message for message in messages if message.grade == grade] for grade in GRADES
        }
        present = [grade for grade in GRADES if self._messages[grade]]
        shares = np.array([GRADE_SHARES[grade] for grade in present])
        self._grades, self._shares = present, shares / shares.sum()

    def draw(
        self,
        generator: np.random.Generator,
        *,
        header_share: float = 0.4,
        grade: Grade | None = None,
        language: Language | None = None,
    ) -> ComposedLine:
        """One line, of ``grade`` and ``language`` where they are named."""
        if grade is None:
            grade = self._grades[int(generator.choice(len(self._grades), p=self._shares))]
        if language is None:
            language = "zh" if generator.random() < CHINESE_SHARE else "en"
        message = _pick(generator, self._messages[grade])
        body = fill(message.text(language), generator)
        header = random_header(generator, grade) if generator.random() < header_share else ""
        return ComposedLine(message, language, header, body)


def fill(template: str, generator: np.random.Generator) -> str:
    """``template`` with a random value in each of its slots."""
    chinese = bool(_CHINESE.search(template))

    def value(match: re.Match[str]) -> str:
        slot = match[1]
        if slot in ("hardware", "software"):
            component = _pick(generator, [c for c in load_components() if c.kind == slot])
            return fill(_name(component, chinese, generator), generator)
        return _value(slot, generator)

    return _SLOT.sub(value, template)


def slots_as_numbers(template: str) -> str:
    """``template`` with a number in each slot: always the same text."""
    return _SLOT.sub("7", template)


def _name(component: Component, chinese: bool, generator: np.random.Generator) -> str:
    if chinese and generator.random() >= _ENGLISH_COMPONENT_SHARE:
        return component.chinese
    return component.english


def _value(slot: str, generator: np.random.Generator) -> str:
    n = lambda low, high: int(generator.integers(low, high))  # noqa: E731
    if slot in _CHOICES:
        return _pick(generator, _CHOICES[slot])
    if slot == "ip":
        address = f"10.{n(0, 256)}.{n(0, 256)}.{n(1, 255)}"
        return address if generator.random() < 0.5 else f"{address}:{n(80, 65000)}"
    if slot == "path":
        return f"/{_pick(generator, ('var', 'data', 'mnt', 'opt'))}/{_value('name', generator)}"
    if slot == "hex":
        return f"0x{n(16, 2**40):x}"
    if slot == "pci":
        return f"0000:{n(1, 200):02x}:00.{n(0, 8)}"
    if slot == "id":
        return f"{n(16**7, 16**8):x}"
    if slot == "time":
        return _clock(generator)
    if slot == "pct":
        return f"{n(1, 100)}%"
    if slot == "size":
        return f"{n(1, 900)} {_pick(generator, ('KB', 'MB', 'GB'))}"
    return str(n(1, 10 ** n(1, 6)))


def random_header(generator: np.random.Generator, grade: Grade) -> str:
    """Time, host, level and source as one of many systems writes them."""
    n = lambda low, high: int(generator.integers(low, high))  # noqa: E731
    clock, level = _clock(generator), _pick(generator, _LEVELS[grade])
    name, seconds = _value("name", generator), f"{n(0, 10**6)}.{n(0, 10**6):06}"
    year, month, day = n(2005, 2027), n(1, 13), n(1, 29)
    compact = f"{year % 100:02}{month:02}{day:02}"
    date, host, milli = f"{year}-{month:02}-{day:02}", _value("host", generator), n(0, 1000)
    syslog = f"{_MONTHS[month - 1]} {day:2} {clock} {host}"
    forms = (
        f"{syslog} {name}[{n(100, 65000)}]: ",
        f"{syslog} kernel: ",
        f"{syslog} kernel[0]: ",
        f"{syslog} kernel: [{seconds}] ",
        f"[{_pick(generator, _DAYS)} {_MONTHS[month - 1]} {day:2} {clock} {year}] {host} kernel: ",
        f"[{_pick(generator, _DAYS)} {_MONTHS[month - 1]} {day:2} {clock} {year}] ",
        f"<{n(0, 8)}>[{seconds}] ",
        f"[{seconds}] ",
        f"{date} {clock},{milli:03} {level} [{name}-{n(1, 30)}] com.example.{name}.Main: ",
        f"{date} {clock}.{milli:03} {n(1000, 30000)} {level} {name}.manager [req-{n(1, 10**9):x}] ",
        f"{date} {clock}, {level:<21} {name.upper()}    ",
        f"{year % 100:02}/{month:02}/{day:02} {clock} {level} {name}.Service: ",
        f"{compact} {clock.replace(':', '')} {n(1, 999)} {level} {name}.Node: ",
        f"{month:02}-{day:02} {clock}.{milli:03}  {n(100, 9000)}  {n(10, 99)} {level[0]} {name}: ",
        f"{year}{month:02}{day:02}-{clock}:{milli}|{name}|{n(10**6, 10**8)}|",
        f"{date}T{clock}.{n(0, 10**6):06}Z {level} {name} ",
        f"{level[0]}{month:02}{day:02} {clock}.{n(0, 10**6):06} {n(1, 99)} {name}.go:{n(1, 900)}] ",
        f"[{month:02}.{day:02} {clock}] {name} - ",
        f"{date} {clock} [{level}] ",
        f"- {n(10**9, 2 * 10**9)} {date.replace('-', '.')} {host} {syslog} {name}: ",
        f"{n(10**9, 2 * 10**9)} {date.replace('-', '.')} R{n(0, 64):02}-M{n(0, 2)} {level} ",
        f"{level}: ",
        f"{level} ",
        f"[{level.lower()}] {name}: ",
    )
    return forms[n(0, len(forms))]


def _clock(generator: np.random.Generator) -> str:
    hour, minute, second = (int(generator.integers(0, top)) for top in (24, 60, 60))
    return f"{hour:02}:{minute:02}:{second:02}"


def _pick(generator: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(generator.integers(len(options)))]
