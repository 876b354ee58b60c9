"""The catalogue of failure signatures: text files beside this module, one per label.

A file's families look like this::

    # a comment; comments and blank lines stand between families only
    == pull-401 @kube +Permission_Denied
    !Failed to pull image "{image}": unauthorized: authentication required
    -- or
    Back-off pulling image "{image}"
    !<Permission_Denied>401 Unauthorized
    -- zh
    !拉取镜像 {image} 失败：401 未授权

``@word`` says which program prints it, ``+Label`` names a further label that the text itself
proves, ``~Label`` the label that a harmless look-alike resembles. Each ``-- or`` begins another
wording, ``-- zh`` a Chinese one. A line that begins with ``!`` is decisive: for all labels of the
family, or for those in angle brackets. ``{tb}`` alone on a line stands for a Python traceback's
frames; other slots are those of ``slots.py``. A backslash at a line's start is taken off, for lines
that begin like a mark.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from contract.errors import DataFileError
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.corpus.slots import SLOT, unknown_slots

FOLDER = Path(__file__).with_name("catalogue")
# Files that are named after no label, and the label their decisive lines prove.
CASCADE, TEARDOWN, UNKNOWN, HEALTHY, LOOK_ALIKE = (
    "cascade",
    "teardown",
    "unknown",
    "healthy",
    "lookalike",
)
GROUPS = (*LABELS, CASCADE, TEARDOWN, UNKNOWN, HEALTHY, LOOK_ALIKE)
CASCADE_LABEL = "Network_Timeout"
TRACEBACK = "{tb}"
# Programs of a failure's text; then the places where a harmless line stands in a log.
PROGRAMS = ("python", "kernel", "kube", "state", "slurm", "nccl", "npu", "shell", "pip", "event")
PLACES = ("head", "progress", "info", "warning", "end", "describe")
_MARK = "!"
_SUBSET = re.compile(r"!<([A-Za-z_,]*)>")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Without the blank it is a slip; programs draw lines of === that are longer.
_HEADER = re.compile(r"==(?: |\w)")
_LONGEST_WORDING = 14
_LARGEST_HELD_CLAN = 3
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class TemplateLine:
    """``decisive`` is also true for the lines of unknown failures, which prove no label."""

    text: str
    labels: frozenset[str] = frozenset()
    decisive: bool = False


@dataclass(frozen=True)
class Wording:
    lines: tuple[TemplateLine, ...]
    chinese: bool


@dataclass(frozen=True)
class Family:
    """One kind of message, however it is worded. ``name`` is ``group/name``; ``labels`` begins with
    the group's own label.
    """

    name: str
    group: str
    labels: tuple[str, ...]
    tags: frozenset[str]
    near: tuple[str, ...]
    wordings: tuple[Wording, ...]

    def of_language(self, *, chinese: bool) -> tuple[Wording, ...]:
        """Its wordings of that language; all of them where it has none."""
        return tuple(w for w in self.wordings if w.chinese == chinese) or self.wordings


@dataclass(frozen=True)
class Catalogue:
    families: tuple[Family, ...]

    def group(self, name: str) -> tuple[Family, ...]:
        return tuple(family for family in self.families if family.group == name)

    def tagged(self, group: str, tag: str) -> tuple[Family, ...]:
        return tuple(f for f in self.families if f.group == group and tag in f.tags)


@cache
def load_catalogue(folder: Path = FOLDER) -> Catalogue:
    """All families of all files.

    Raises: DataFileError (``where`` is ``file:line``): a file is missing or cannot be understood.
    """
    families: list[Family] = []
    for group in GROUPS:
        path = folder / f"{group}.txt"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataFileError(
                "catalogue file cannot be read",
                where=f"{path}:1",
                expected="a UTF-8 text file",
                got=str(error),
            ) from error
        families += _Parser(path, group).parse(text)
    return Catalogue(tuple(families))


def hold_out(catalogue: Catalogue, seed: int, share: float) -> tuple[Catalogue, Catalogue]:
    """(train, held out): whole families, about ``share`` of each group, the same for a seed.

    Families that share a decisive line stay together, whatever surrounds it: no line that proves
    a cause on one side is known from the other. Harmless material is split, too: a look-alike
    learned by heart proves nothing.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected between 0 and 1, got {share}")
    relatives = _relatives(catalogue.families)
    strata: dict[tuple[str, ...], list[str]] = {}
    for family in catalogue.families:
        # Strata by place keep every kind of harmless line on both sides.
        place = sorted(family.tags & set(PLACES))
        strata.setdefault((family.group, *place), []).append(family.name)
    held: set[str] = set()
    for names in strata.values():
        wanted = min(len(names) - 1, max(1, round(len(names) * share)))
        for name in sorted(names, key=lambda name: zlib.crc32(f"{seed}:{name}".encode())):
            if len(held & set(names)) >= wanted:
                break
            # Large clans are the commonest messages; they are what training cannot go without.
            if len(relatives[name]) <= _LARGEST_HELD_CLAN:
                held |= relatives[name]
    return (
        Catalogue(tuple(f for f in catalogue.families if f.name not in held)),
        Catalogue(tuple(f for f in catalogue.families if f.name in held)),
    )


def form_of(template: str) -> str:
    """The line without slots and numbers: what is the same from log to log."""
    return _NUMBER.sub("#", SLOT.sub("#", template)).strip()


def decisive_forms(family: Family) -> frozenset[str]:
    """The forms of the family's decisive lines, in all wordings."""
    return frozenset(
        form_of(line.text) for wording in family.wordings for line in wording.lines if line.decisive
    )


def _relatives(families: Iterable[Family]) -> dict[str, frozenset[str]]:
    """{family: it and all families that share a decisive line with it, directly or by others}."""
    clans: list[tuple[set[str], set[str]]] = []
    for family in families:
        names, forms = {family.name}, set(decisive_forms(family))
        apart = []
        for clan in clans:
            if clan[1] & forms:
                names |= clan[0]
                forms |= clan[1]
            else:
                apart.append(clan)
        clans = [*apart, (names, forms)]
    return {name: frozenset(names) for names, _ in clans for name in names}


class _Parser:
    """Reads one file; every complaint names its line."""

    def __init__(self, path: Path, group: str) -> None:
        self._path = path
        self._group = group
        self._number = 0

    def parse(self, text: str) -> list[Family]:
        families: list[Family] = []
        body: list[tuple[int, str]] = []
        header: tuple[int, str] | None = None
        for number, line in enumerate([*text.splitlines(), "== end"], start=1):
            self._number = number
            if _HEADER.match(line):
                if header is not None:
                    families.append(self._family(header, body))
                    self._check_name(header[0], families)
                header, body = (number, line), []
            elif header is None:
                if line.strip() and not line.startswith("#"):
                    self._fail(
                        "text before the first family", "a line that begins with '== '", line
                    )
            elif not line.startswith("#"):
                body.append((number, line.rstrip()))
        if not families:
            self._number = 1
            self._fail("no family in the file", "a line that begins with '== '", "none")
        return families

    def _check_name(self, number: int, families: list[Family]) -> None:
        self._number = number
        if families[-1].name in {family.name for family in families[:-1]}:
            self._fail("two families of one name", "names that differ", families[-1].name)

    def _family(self, header: tuple[int, str], body: list[tuple[int, str]]) -> Family:
        self._number = header[0]
        name, labels, tags, near = self._header(header[1])
        wordings: list[Wording] = []
        lines: list[TemplateLine] = []
        chinese, began = False, header[0]
        # Blank lines at a wording's end only keep families apart for the reader of the file.
        for number, line in [*body, (body[-1][0] if body else header[0], "-- end")]:
            self._number = number
            if line.startswith("-- "):
                if line not in ("-- or", "-- zh", "-- end"):
                    self._fail("unknown mark", "'-- or' or '-- zh'", repr(line))
                while lines and not lines[-1].text:
                    lines.pop()
                if lines or line != "-- zh" or wordings:
                    self._number = began
                    wordings.append(self._wording(lines, chinese))
                lines, chinese, began = [], line == "-- zh", number
            else:
                lines.append(self._line(line, labels))
        return Family(f"{self._group}/{name}", self._group, labels, tags, near, tuple(wordings))

    def _header(self, line: str) -> tuple[str, tuple[str, ...], frozenset[str], tuple[str, ...]]:
        words = line.removeprefix("==").split()
        if not words or not _NAME.fullmatch(words[0]):
            self._fail("bad name of a family", "lower case, digits, - and .", repr(line))
        labels = [self._group] if self._group in LABELS else []
        if self._group == CASCADE:
            labels = [CASCADE_LABEL]
        tags: list[str] = []
        near: list[str] = []
        for word in words[1:]:
            target = {"@": tags, "+": labels, "~": near}.get(word[0])
            allowed = (*PROGRAMS, *PLACES) if word[0] == "@" else LABELS
            if target is None or word[1:] not in allowed:
                self._fail(
                    "unknown word in a family's header",
                    "@ before one of "
                    + ", ".join((*PROGRAMS, *PLACES))
                    + "; + or ~ before one of the labels",
                    word,
                )
            target.append(word[1:])
        return words[0], tuple(labels), frozenset(tags), tuple(near)

    def _line(self, line: str, labels: tuple[str, ...]) -> TemplateLine:
        proved: Iterable[str] = ()
        decisive = line.startswith(_MARK)
        if decisive:
            subset = _SUBSET.match(line)
            proved = labels
            text = line[len(_MARK) :]
            if subset:
                proved, text = subset[1].split(","), line[subset.end() :]
                if not set(proved) <= set(labels):
                    self._fail(
                        "a line proves a foreign label", f"of {', '.join(labels)}", subset[1]
                    )
            if not text.strip():
                self._fail("an empty decisive line", "text after the mark", repr(line))
            if self._group in (HEALTHY, LOOK_ALIKE, TEARDOWN):
                self._fail(f"a decisive line among {self._group}", "no mark '!'", repr(line))
        else:
            text = line.removeprefix("\\")
        if text != TRACEBACK and (unknown := unknown_slots(text)):
            self._fail("unknown slot", "a slot of slots.py", ", ".join(unknown))
        return TemplateLine(text, frozenset(proved), decisive)

    def _wording(self, lines: list[TemplateLine], chinese: bool) -> Wording:
        if not 1 <= len(lines) <= _LONGEST_WORDING:
            self._fail("bad size of a wording", f"1 to {_LONGEST_WORDING} lines", str(len(lines)))
        needs_proof = self._group in (*LABELS, CASCADE, UNKNOWN)
        if needs_proof and not any(line.decisive for line in lines):
            self._fail("a wording without a decisive line", "a line that begins with '!'", "none")
        return Wording(tuple(lines), chinese)

    def _fail(self, what: str, expected: str, got: str) -> NoReturn:
        raise DataFileError(what, where=f"{self._path}:{self._number}", expected=expected, got=got)
