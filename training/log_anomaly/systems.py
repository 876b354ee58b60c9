"""Reads the labelled logs of real systems: the grades each line may have, no more than is known.

An alert of the operators is a fault. What they left untagged is no fault, but may be a warning; an
INFO line among it is routine. The tag itself is never part of the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataFileError
from training.data.labelled_tsv import read_labelled_tsv
from training.data.row_report import RowReport
from training.data.text_file import read_text
from training.log_anomaly.vocabulary import Grade

LABELS = ("normal", "anomaly")
LABEL_ALIASES = {"正常": "normal", "异常": "anomaly", "0": "normal", "1": "anomaly"}
FAULT: tuple[Grade, ...] = ("fault",)
NO_FAULT: tuple[Grade, ...] = ("routine", "warning")
ROUTINE: tuple[Grade, ...] = ("routine",)
# Systems whose operators saw nothing to do: their lines count as normal. OpenSSH, Apache,
# Zookeeper, Hadoop and Linux are full of unlabelled failures and are left out.
NEAR_NORMAL_SYSTEMS = ("HDFS", "Spark", "OpenStack", "Proxifier")
BGL, BGL_TEMPLATES, GPU_NODES = "BGL", "BGL templates", "GPU nodes"
# The "system" of composed rows.
VOCABULARY = "vocabulary"
_WORD = re.compile(r"[a-z]{2,}|[㐀-鿿]")
_VARIABLE = re.compile(r"\S*[0-9/\\]\S*|<[a-z*]+>")
_INFO = re.compile(r"\bINFO\b")
# How far into a line a level stands.
_LEVEL_WITHIN_CHARACTERS = 120


@dataclass(frozen=True)
class LogRow:
    """``header`` + ``message`` is the raw line; ``grades``: those it may have.

    ``family``: rows that resemble each other beyond their signature are held out together by it.
    """

    message: str
    grades: tuple[Grade, ...]
    system: str
    header: str = ""
    family: str = ""

    @property
    def anomaly(self) -> bool:
        return self.grades == FAULT

    @property
    def text(self) -> str:
        return self.header + self.message

    @property
    def split_key(self) -> str:
        return self.family or signature(self.message)


@dataclass(frozen=True)
class SystemFile:
    """Where a system's lines lie below the data folder, and how they are read.

    ``in_time_order``: its late signatures can be held out as the future.
    """

    system: str
    path: str
    read: Callable[[Path, RowReport], list[LogRow]]
    in_time_order: bool


def words_of(message: str) -> list[str]:
    """Its words in lower case, without anything variable."""
    return _WORD.findall(_VARIABLE.sub(" ", message.lower()))


def signature(message: str) -> str:
    """The first words of a message."""
    return " ".join(words_of(message)[:8])


def read_labelled_lines(path: Path, report: RowReport) -> list[LogRow]:
    """The seed's ``label<TAB>text``. Raises DataFileError."""
    return [
        LogRow(row.text, FAULT if row.labels[0] == LABELS[1] else NO_FAULT, path.stem)
        for row in read_labelled_tsv(path, LABELS, report, multiple=False, aliases=LABEL_ALIASES)
    ]


def read_bgl(path: Path, report: RowReport) -> list[LogRow]:
    """The first column is the label ("-" = normal) and never part of the input."""
    rows = []
    for number, line in _lines(path):
        fields = line.split(" ", 9)
        if len(fields) < 10 or not fields[1].isdigit():
            report.reject(path, number, "not a line of this supercomputer's log")
            continue
        header = " ".join(fields[1:9]) + " "
        grades = FAULT if fields[0] != "-" else (ROUTINE if fields[8] == "INFO" else NO_FAULT)
        rows.append(LogRow(fields[9], grades, BGL, header))
        report.accept()
    return rows


def read_templates(path: Path, report: RowReport) -> list[LogRow]:
    """``label<TAB>tag<TAB>template``; a wildcard becomes a number, as the masks see it."""
    rows = []
    for number, line in _lines(path):
        label, tab, rest = line.partition("\t")
        template = rest.partition("\t")[2].strip()
        if number == 1 and label == "label":
            continue
        if not tab or label not in ("0", "1") or not template:
            report.reject(path, number, "expected label<TAB>alert_tag<TAB>template")
            continue
        grades = FAULT if label == "1" else NO_FAULT
        rows.append(LogRow(template.replace("<*>", "7"), grades, BGL_TEMPLATES))
        report.accept()
    return rows


def read_kernel_faults(path: Path, report: RowReport) -> list[LogRow]:
    """``component<TAB>line`` of GPU nodes; every line is a fault."""
    rows = []
    for number, line in _lines(path):
        component, tab, text = line.partition("\t")
        if number == 1 and component == "component":
            continue
        if not tab or not text.strip():
            report.reject(path, number, "expected component<TAB>line")
            continue
        rows.append(LogRow(text, FAULT, GPU_NODES, family=f"kernel {component}"))
        report.accept()
    return rows


def read_near_normal(path: Path, report: RowReport) -> list[LogRow]:
    """Raw lines of a system where nothing was wrong. Raises DataFileError: no line."""
    rows = []
    for _, line in _lines(path):
        routine = _INFO.search(line[:_LEVEL_WITHIN_CHARACTERS])
        rows.append(LogRow(line, ROUTINE if routine else NO_FAULT, path.parent.name))
        report.accept()
    if not rows:
        raise DataFileError("no line in file", where=str(path), expected="log lines")
    return rows


SYSTEM_FILES: tuple[SystemFile, ...] = (
    SystemFile(BGL, "loghub/BGL/BGL_2k.log", read_bgl, True),
    *(
        SystemFile(name, f"loghub/{name}/{name}_2k.log", read_near_normal, True)
        for name in NEAR_NORMAL_SYSTEMS
    ),
    SystemFile(
        BGL_TEMPLATES,
        "supercomputer_templates/BGL_templates_labelled.tsv",
        read_templates,
        False,
    ),
    SystemFile(GPU_NODES, "gpud_kmsg/kmsg_lines.tsv", read_kernel_faults, False),
)


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    lines = read_text(path).split("\n")
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
