"""Labelled log lines: public corpora, the seed's ``label<TAB>text``, or composed lines.

Real rows are de-duplicated by signature (their words without anything variable), and a signature
is on one side of the split only. Files in time order are split by it: what is first seen in the
last part is validation.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import DataFileError
from contract.manifest import DataFile, sha256_of
from training.data.labelled_tsv import read_labelled_tsv
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.data.text_file import read_text
from training.log_anomaly.generate import compose_line, generate_lines, random_header
from training.text.trainer import Sampler, TextExample

LABELS = ("normal", "anomaly")
LABEL_ALIASES = {"正常": "normal", "异常": "anomaly", "0": "normal", "1": "anomaly"}
# Systems whose operators saw nothing to do: their lines count as normal. OpenSSH, Apache,
# Zookeeper, Hadoop and Linux are full of unlabelled failures and are left out.
NEAR_NORMAL_SYSTEMS = ("HDFS", "Spark", "OpenStack", "Proxifier")
VALIDATION_SHARE = 0.3
GENERATED_LINES = 4_000
# The words that tell a fault-like line; a normal one among them is nobody's certainty.
_SEVERE = re.compile(r"uncorrectable|fatal|panic|fail|over limit|abort|not functional", re.I)
_WORD = re.compile(r"[a-z]{2,}|[㐀-鿿]")
_VARIABLE = re.compile(r"\S*[0-9/\\]\S*|<[a-z*]+>")


@dataclass(frozen=True)
class LogRow:
    """``header`` + ``message`` is the raw line. ``group``: rows of one origin and label."""

    message: str
    anomaly: bool
    group: str
    header: str = ""
    doubtful: bool = False
    # Rows that resemble each other beyond their signature; held out together when named.
    family: str = ""

    @property
    def text(self) -> str:
        return self.header + self.message

    @property
    def split_key(self) -> str:
        return self.family or signature(self.message)


@dataclass(frozen=True)
class Corpus:
    """``generated``: the validation rows are composed ones too."""

    train: list[LogRow]
    validation: list[LogRow]
    files: list[DataFile]
    generated: bool


def signature(message: str) -> str:
    """The first words of a message, without numbers, case and placeholders."""
    return " ".join(_WORD.findall(_VARIABLE.sub(" ", message.lower()))[:8])


def load_corpus(source: DataSource, report: RowReport, seed: int) -> Corpus:
    """Training and validation rows of whatever ``source`` holds, composed lines always added.

    Raises:
        DataFileError: a file that cannot be read, or (strict) a bad row.
    """
    generator = np.random.default_rng([seed, 17])
    composed_train, composed_validation = _composed(generator)
    files, timed, untimed = _read_real(source, report)
    if not timed and not untimed:
        note = DataFile(path="generator:log_anomaly", sha256="", rows=GENERATED_LINES, role="train")
        return Corpus(composed_train, composed_validation, [note], generated=True)
    train, validation = _split(timed, untimed)
    note = DataFile(path="generator:log_anomaly", sha256="", rows=len(composed_train), role="train")
    return Corpus([*train, *composed_train], validation, [*files, note], generated=False)


def make_sampler(rows: list[LogRow]) -> Sampler:
    """Draws rows with weight 1/√(size of their group), now with, now without their header."""
    sizes = Counter(row.group for row in rows)
    weights = np.array([1 / np.sqrt(sizes[row.group]) for row in rows])
    weights /= weights.sum()

    def sample(generator: np.random.Generator, count: int) -> list[TextExample]:
        chosen = generator.choice(len(rows), size=count, p=weights)
        return [_example(rows[int(index)], generator) for index in chosen]

    return sample


def _example(row: LogRow, generator: np.random.Generator) -> TextExample:
    text, chance = row.message, generator.random()
    if row.header and chance < 0.4:
        text = row.text
    elif not row.group.startswith("composed") and chance < 0.7:
        # A foreign header: only the message may decide.
        text = random_header(generator, "warning") + row.message
    anomaly = 0.98 if row.anomaly else (0.2 if row.doubtful else 0.01)
    return TextExample(text, (1 - anomaly, anomaly))


def _composed(generator: np.random.Generator) -> tuple[list[LogRow], list[LogRow]]:
    train, validation = [], []
    for line in generate_lines(generator, GENERATED_LINES):
        held_out = zlib.crc32(line.state.encode()) % 5 == 0
        row = LogRow(line.text, line.grade == "fault", f"composed {line.grade}")
        (validation if held_out else train).append(row)
    return train, validation


def _split(timed: list[list[LogRow]], untimed: list[LogRow]) -> tuple[list[LogRow], list[LogRow]]:
    """Whole signatures go to one side: by time where there is time, else by their hash."""
    held_out: set[str] = set()
    known: set[str] = set()
    for rows in timed:
        first_seen: dict[str, int] = {}
        for position, row in enumerate(rows):
            first_seen.setdefault(row.split_key, position)
        late = len(rows) * (1 - VALIDATION_SHARE)
        known.update(first_seen)
        held_out.update(key for key, position in first_seen.items() if position >= late)
    for row in untimed:
        key = row.split_key
        if key not in known and zlib.crc32(key.encode()) % 1000 < 1000 * VALIDATION_SHARE:
            held_out.add(key)
    train: dict[tuple[str, bool], LogRow] = {}
    validation: dict[tuple[str, bool], LogRow] = {}
    for row in [row for rows in timed for row in rows] + untimed:
        side = validation if row.split_key in held_out else train
        side.setdefault((signature(row.message), row.anomaly), row)
    return list(train.values()), list(validation.values())


def _read_real(
    source: DataSource, report: RowReport
) -> tuple[list[DataFile], list[list[LogRow]], list[LogRow]]:
    if source.root is None:
        return [], [], []
    if source.origin == "file":
        rows = _read_seed(source.root, report)
        return [_data_file(source.root, source.root.parent, len(rows))], [], rows
    logs = source.root / "logs"
    files: list[DataFile] = []
    timed: list[list[LogRow]] = []
    untimed: list[LogRow] = []
    readers: list[tuple[Path, Callable[[Path, RowReport], list[LogRow]], bool]] = [
        (logs / "loghub/BGL/BGL_2k.log", _read_bgl, True),
        *(
            (logs / f"loghub/{name}/{name}_2k.log", _read_near_normal, True)
            for name in NEAR_NORMAL_SYSTEMS
        ),
        (
            logs / "supercomputer_templates/BGL_templates_labelled.tsv",
            _read_templates,
            False,
        ),
        (logs / "gpud_kmsg/kmsg_lines.tsv", _read_kernel_faults, False),
        *((path, _read_seed, False) for path in sorted(logs.glob("*.tsv"))),
    ]
    for path, read, in_time_order in readers:
        if not path.is_file():
            continue
        rows = read(path, report)
        if not rows:
            continue
        files.append(_data_file(path, source.root, len(rows)))
        if in_time_order:
            timed.append(rows)
        else:
            untimed += rows
    return files, timed, untimed


def _data_file(path: Path, root: Path, rows: int) -> DataFile:
    return DataFile(
        path=str(path.relative_to(root)), sha256=sha256_of(path), rows=rows, role="train"
    )


def _read_seed(path: Path, report: RowReport) -> list[LogRow]:
    rows = read_labelled_tsv(path, LABELS, report, multiple=False, aliases=LABEL_ALIASES)
    name = path.stem
    return [LogRow(row.text, row.labels[0] == LABELS[1], f"{name} {row.labels[0]}") for row in rows]


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    lines = read_text(path).split("\n")
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _read_bgl(path: Path, report: RowReport) -> list[LogRow]:
    """The first column is the label ("-" = normal) and never part of the input."""
    rows = []
    for number, line in _lines(path):
        fields = line.split(" ", 9)
        if len(fields) < 10 or not fields[1].isdigit():
            report.reject(path, number, "not a line of this supercomputer's log")
            continue
        header = " ".join(fields[1:9]) + " "
        rows.append(_tagged(fields[9], fields[0] != "-", "bgl", header))
        report.accept()
    return rows


def _read_templates(path: Path, report: RowReport) -> list[LogRow]:
    rows = []
    for number, line in _lines(path):
        label, tab, rest = line.partition("\t")
        template = rest.partition("\t")[2].strip()
        if number == 1 and label == "label":
            continue
        if not tab or label not in ("0", "1") or not template:
            report.reject(path, number, "expected label<TAB>alert_tag<TAB>template")
            continue
        # A wildcard stands for something variable, as the masks see it.
        rows.append(_tagged(template.replace("<*>", "7"), label == "1", "template"))
        report.accept()
    return rows


def _read_kernel_faults(path: Path, report: RowReport) -> list[LogRow]:
    rows = []
    for number, line in _lines(path):
        component, tab, text = line.partition("\t")
        if number == 1 and component == "component":
            continue
        if not tab or not text.strip():
            report.reject(path, number, "expected component<TAB>line")
            continue
        rows.append(LogRow(text, True, "kernel anomaly", family=f"kernel {component}"))
        report.accept()
    return rows


def _read_near_normal(path: Path, report: RowReport) -> list[LogRow]:
    rows = []
    group = path.parent.name
    for _, line in _lines(path):
        rows.append(LogRow(line, False, f"{group} normal"))
        report.accept()
    if not rows:
        raise DataFileError("no line in file", where=str(path), expected="log lines")
    return rows


def _tagged(message: str, anomaly: bool, system: str, header: str = "") -> LogRow:
    doubtful = not anomaly and bool(_SEVERE.search(message))
    return LogRow(message, anomaly, f"{system} {LABELS[anomaly]}", header, doubtful)


def composed_question(generator: np.random.Generator, *, anomaly: bool, chinese: bool) -> str:
    """One composed line of the kind asked for."""
    while True:
        line = compose_line(generator, header_share=0.5)
        has_chinese = bool(re.search(r"[㐀-鿿]", line.text))
        if (line.grade == "fault") == anomaly and has_chinese == chinese:
            return line.text
