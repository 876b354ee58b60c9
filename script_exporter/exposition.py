"""What a script printed, read strictly as the Prometheus text format, and written again.

Prometheus refuses a whole scrape for one bad line, so nothing of a script's output is passed on
unread: ``parse`` gives families or an ``OutputError`` that names the line, ``Page`` renders
families of many scripts as one valid page.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TYPES = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})

MOST_LABELS = 40
LONGEST_VALUE = 2048
LONGEST_NAME = 256
LONGEST_LINE = 65_536

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\[\\"n])*)"\s*(,|(?=\}))')
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE | re.ASCII
)
_ESCAPED = re.compile(r"\\(.)")
_UNESCAPE = {"\\": "\\", '"': '"', "n": "\n"}
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

Labels = tuple[tuple[str, str], ...]
SeriesKey = tuple[str, Labels]
"""Name and sorted labels; one with an empty value is none, as Prometheus sees it."""


class OutputError(Exception):
    """The output is not exposed; ``reason`` is a metric label, the text names the line."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Sample:
    """One line. ``value`` as it was written, so that no digit is lost."""

    name: str
    labels: Labels
    value: str

    @property
    def key(self) -> SeriesKey:
        return self.name, tuple(sorted(pair for pair in self.labels if pair[1]))

    def text(self) -> str:
        if not self.labels:
            return f"{self.name} {self.value}\n"
        inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels)
        return f"{self.name}{{{inside}}} {self.value}\n"


@dataclass
class Family:
    """Samples of one metric, which stand together on a page."""

    name: str
    kind: str = "untyped"
    help: str = ""
    samples: list[Sample] = field(default_factory=list)


def parse(
    output: bytes, *, series_limit: int, constant_labels: Mapping[str, str] | None = None
) -> list[Family]:
    """Families in the order of their first line.

    constant_labels: added to every sample that has none of that name

    Raises OutputError: invalid (a line breaks the format), duplicate (a series twice), too_many
    (series), timestamp.
    """
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError as error:
        place = output.count(b"\n", 0, error.start) + 1
        raise OutputError("invalid", f"line {place}: not UTF-8") from None
    reader = _Reader(series_limit, dict(constant_labels or {}))
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LONGEST_LINE:
            raise OutputError("invalid", f"line {number}: longer than {LONGEST_LINE} characters")
        try:
            if "\0" in line:
                raise OutputError("invalid", "a NUL")
            reader.read(line.strip())
        except OutputError as error:
            raise OutputError(error.reason, f"line {number}: {error}: {_shown(line)}") from None
    return reader.families()


class _Reader:
    def __init__(self, series_limit: int, constant_labels: dict[str, str]) -> None:
        self._limit = series_limit
        self._constant = constant_labels
        self._families: dict[str, Family] = {}
        self._declared: dict[str, str] = {}
        self._helps: dict[str, str] = {}
        self._keys: set[SeriesKey] = set()

    def read(self, line: str) -> None:
        if not line:
            return
        if line.startswith("#"):
            self._comment(line)
        else:
            self._sample(line)

    def families(self) -> list[Family]:
        for name, family in self._families.items():
            family.help = self._helps.get(name, "")
        return list(self._families.values())

    def _comment(self, line: str) -> None:
        words = line[1:].split(None, 2)
        if len(words) < 2 or words[0] not in ("HELP", "TYPE"):
            return
        name, rest = words[1], words[2] if len(words) == 3 else ""
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise OutputError("invalid", f"no metric name after {words[0]}")
        if words[0] == "HELP":
            # Scripts print it again with every sample; what the first said holds.
            self._helps.setdefault(name, _unescaped(rest))
            return
        kind = "untyped" if rest == "unknown" else rest
        if kind not in TYPES:
            raise OutputError("invalid", f"expected one of {', '.join(sorted(TYPES))} as type")
        if self._declared.setdefault(name, kind) != kind:
            raise OutputError("invalid", f"{name} was {self._declared[name]} before")
        family = self._families.get(name)
        if family is not None and family.kind != kind:
            if family.kind != "untyped":
                raise OutputError("invalid", f"{name} was {family.kind} before")
            if kind in _SUFFIXES:
                raise OutputError("invalid", f"type of {name} after its samples")
            family.kind = kind
            for sample in family.samples:
                _fits(family, sample)

    def _sample(self, line: str) -> None:
        found = _NAME.match(line)
        if found is None:
            raise OutputError("invalid", "expected a metric name, a comment or nothing")
        name, rest = found[0], line[found.end() :].lstrip()
        if len(name) > LONGEST_NAME:
            raise OutputError("invalid", f"a name longer than {LONGEST_NAME} characters")
        labels: list[tuple[str, str]] = []
        if rest.startswith("{"):
            labels, rest = _labels(rest[1:])
        elif len(line) > found.end() and not line[found.end()].isspace():
            raise OutputError("invalid", f"unexpected {line[found.end()]!r} in the name")
        words = rest.split()
        if not words or not _is_number(words[0]):
            raise OutputError("invalid", "expected a number as value")
        if len(words) > 1:
            # The page shows it again until the next run, and Prometheus would refuse it then.
            if len(words) == 2 and re.fullmatch(r"-?\d+(\.\d+)?", words[1]):
                raise OutputError("timestamp", "expected no timestamp")
            raise OutputError("invalid", "expected nothing after the value")
        names = {label for label, _ in labels}
        if len(names) != len(labels):
            raise OutputError("invalid", "a label twice")
        labels += [pair for pair in self._constant.items() if pair[0] not in names]
        self._add(Sample(name, tuple(labels), words[0]))

    def _add(self, sample: Sample) -> None:
        if sample.key in self._keys:
            raise OutputError("duplicate", "this series was printed before")
        if len(self._keys) >= self._limit:
            raise OutputError("too_many", f"more than {self._limit} series")
        self._keys.add(sample.key)
        name = self._family_name(sample.name)
        family = self._families.get(name)
        if family is None:
            family = Family(name, self._declared.get(name, "untyped"))
            self._families[name] = family
        _fits(family, sample)
        family.samples.append(sample)

    def _family_name(self, name: str) -> str:
        if name in self._declared:
            return name
        for suffix in ("_bucket", "_sum", "_count"):
            base = name.removesuffix(suffix)
            if base != name and suffix in _SUFFIXES.get(self._declared.get(base, ""), ()):
                return base
        return name


def _fits(family: Family, sample: Sample) -> None:
    """Raises OutputError: the sample cannot be one of a metric of this type."""
    labels = dict(sample.labels)
    value = float(sample.value)
    if family.kind == "counter" and not value >= 0:
        raise OutputError("invalid", "a counter is a number from 0 up")
    if family.kind == "histogram":
        if sample.name == family.name:
            raise OutputError("invalid", "a histogram has _bucket, _sum and _count")
        if sample.name.endswith("_bucket") and not _is_number(labels.get("le", "")):
            raise OutputError("invalid", "expected a number in the label le")
    if (
        family.kind == "summary"
        and sample.name == family.name
        and not _is_number(labels.get("quantile", ""))
    ):
        raise OutputError("invalid", "expected a number in the label quantile")


def _labels(rest: str) -> tuple[list[tuple[str, str]], str]:
    """Labels after ``{``, and what follows ``}``."""
    labels: list[tuple[str, str]] = []
    position = 0
    while True:
        found = _LABEL.match(rest, position)
        if found is None:
            break
        name, value = found[1], _unescaped(found[2])
        if name.startswith("__"):
            raise OutputError("invalid", f"the label {name} is Prometheus' own")
        if len(name) > LONGEST_NAME or len(value) > LONGEST_VALUE:
            raise OutputError("invalid", f"label {name[:40]} longer than {LONGEST_VALUE}")
        labels.append((name, value))
        if len(labels) > MOST_LABELS:
            raise OutputError("invalid", f"more than {MOST_LABELS} labels")
        position = found.end()
        if found[3] != ",":
            break
    left = rest[position:].lstrip()
    if not left.startswith("}"):
        raise OutputError("invalid", f'expected name="value" or }} at {_shown(left)}')
    return labels, left[1:]


def _is_number(text: str) -> bool:
    # 1e999 is infinite here and an error to Prometheus.
    return _NUMBER.fullmatch(text) is not None and (
        "n" in text.lower() or math.isfinite(float(text))
    )


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _UNESCAPE.get(found[1], found[0]), text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")


def number(value: float) -> str:
    """A value as the format writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def family(
    name: str, kind: str, text: str, rows: Iterable[tuple[Mapping[str, str], float]]
) -> Family:
    """A family of our own."""
    samples = [Sample(name, tuple(labels.items()), number(value)) for labels, value in rows]
    return Family(name, kind, text, samples)


class Page:
    """Families of many sources as one text; what several sources share is written together."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def add(self, families: Iterable[Family]) -> None:
        for given in families:
            mine = self._families.get(given.name)
            if mine is None:
                mine = self._families[given.name] = Family(given.name, given.kind, given.help)
            elif mine.kind == "untyped":
                mine.kind = given.kind
            mine.help = mine.help or given.help
            mine.samples += given.samples

    def text(self) -> str:
        parts: list[str] = []
        for one in self._families.values():
            if not one.samples:
                continue
            if one.help:
                text = one.help.replace("\\", "\\\\").replace("\n", "\\n")
                parts.append(f"# HELP {one.name} {text}\n")
            if one.kind != "untyped":
                parts.append(f"# TYPE {one.name} {one.kind}\n")
            parts += [sample.text() for sample in one.samples]
        return "".join(parts)
