"""What log lines say: message templates with a grade, in English and Chinese.

A fault needs an operator; a warning heals itself or is the client's affair; routine is the rest.
``messages/<domain>.tsv`` holds ``grade<TAB>english<TAB>chinese``, ``components.tsv`` what fills the
slots ``{hardware}`` and ``{software}``. Many routine messages carry words of failure ("0 errors",
"failure detector started") and many faults none: wording alone decides nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from contract.errors import DataFileError

Grade = Literal["routine", "warning", "fault"]
Language = Literal["en", "zh"]
GRADES: tuple[Grade, ...] = get_args(Grade)
_SLOT_NAMES = """
n hex ip host pci path name user id dev nic func exc pct size ms time hardware software
"""
SLOTS = frozenset(_SLOT_NAMES.split())
FOLDER = Path(__file__).parent
_SLOT = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Message:
    """One message family. ``english`` and ``chinese`` say the same, with slots like ``{ip}``."""

    grade: Grade
    english: str
    chinese: str
    domain: str

    def text(self, language: Language) -> str:
        return self.english if language == "en" else self.chinese


@dataclass(frozen=True)
class Component:
    """A part of some system, by both its names."""

    kind: Literal["hardware", "software"]
    english: str
    chinese: str


@cache
def load_messages(folder: Path = FOLDER / "messages") -> tuple[Message, ...]:
    """All messages, files in order of their names.

    Raises:
        DataFileError: a row that is not grade, English, Chinese, or that has an unknown slot.
    """
    messages = []
    for path in sorted(folder.glob("*.tsv")):
        for number, fields in _rows(path):
            grade, english, chinese = fields
            if grade not in GRADES:
                raise _fault(path, number, f"a grade of {', '.join(GRADES)}", grade)
            messages.append(Message(grade, english, chinese, path.stem))
    return tuple(messages)


@cache
def load_components(path: Path = FOLDER / "components.tsv") -> tuple[Component, ...]:
    """All components. Raises DataFileError as ``load_messages`` does."""
    components = []
    for number, (kind, english, chinese) in _rows(path):
        if kind not in ("hardware", "software"):
            raise _fault(path, number, "hardware or software", kind)
        components.append(Component(kind, english, chinese))
    return tuple(components)


@cache
def vocabulary_sha256() -> str:
    """One hash of all the vocabulary's files."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*.tsv")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _rows(path: Path) -> list[tuple[int, tuple[str, str, str]]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) != 3 or not all(field.strip() for field in fields):
            raise _fault(path, number, "three columns: first, English, Chinese", line)
        unknown = sorted(set(_SLOT.findall(line)) - SLOTS)
        if unknown:
            raise _fault(path, number, f"slots of {', '.join(sorted(SLOTS))}", ", ".join(unknown))
        rows.append((number, (fields[0], fields[1], fields[2])))
    return rows


def _fault(path: Path, number: int, expected: str, got: str) -> DataFileError:
    return DataFileError(
        "vocabulary row cannot be read", where=f"{path}:{number}", expected=expected, got=got[:80]
    )
