r"""The seed's text files: ``label<TAB>text``, for several labels ``label,label<TAB>text``.

``\n`` and ``\t`` written as two characters in the text stand for the real ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.text_file import read_text

_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


@dataclass(frozen=True)
class LabelledText:
    labels: tuple[str, ...]
    text: str


def read_labelled_tsv(
    path: Path,
    allowed: Sequence[str],
    report: RowReport,
    *,
    multiple: bool,
    aliases: Mapping[str, str] | None = None,
) -> list[LabelledText]:
    """Read one file; bad rows go to ``report`` with file and line.

    With ``multiple`` an empty label cell means a healthy text; without it exactly one label is due.
    ``aliases`` maps other spellings (正常, 0 …) to the allowed ones.

    Raises:
        DataFileError: unreadable, or no good row; or the first bad row when strict.
    """
    texts: list[LabelledText] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and _is_header(line)):
            continue
        cell, tab, text = line.partition("\t")
        if not tab:
            report.reject(path, number, "no tab between label and text")
            continue
        names = [name.strip() for name in cell.split(",") if name.strip()]
        names = [(aliases or {}).get(name, name) for name in names]
        unknown = [name for name in names if name not in allowed]
        if unknown:
            report.reject(
                path, number, f"unknown label {unknown[0]!r}, expected {', '.join(allowed)}"
            )
        elif not multiple and len(names) != 1:
            report.reject(path, number, f"expected one label, got {len(names)}")
        elif not text.strip():
            report.reject(path, number, "empty text")
        else:
            unescaped = re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], text)
            texts.append(LabelledText(tuple(dict.fromkeys(names)), unescaped))
            report.accept()
    if not texts:
        raise DataFileError(
            "no good row in file",
            where=str(path),
            expected="label<TAB>text",
            got=report.describe(),
        )
    return texts


def _is_header(line: str) -> bool:
    return line.strip().lower() in {"label\ttext", "labels\ttext"}
