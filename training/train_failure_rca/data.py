"""The logs that train, tune and judge: composed of the catalogue, really provoked, the user's own.

Whole families are held out of both sources, twice: on one part thresholds and temperature are
chosen, the other part only judges. The split is a function of the seed alone.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contract.errors import DataFileError
from contract.manifest import DataFile, sha256_of
from training.data.labelled_tsv import read_labelled_tsv
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.train_failure_rca.corpus import (
    LABELS,
    Catalogue,
    ComposedLog,
    compose_logs,
    hold_out,
    load_catalogue,
)
from training.train_failure_rca.corpus.catalogue import FOLDER

PROVOKED_FILE = Path(__file__).with_name("corpus") / "provoked.jsonl"
EXAMPLES_FILE = "rca/examples.jsonl"
COMPOSED, REAL, EXAMPLES = "composed", "real", "examples"
_HELD_OUT_SHARE = 0.2
# Real families are many and small: more of them judge.
_REAL_TEST_SHARE, _REAL_TUNE_SHARE = 0.3, 0.12


@dataclass(frozen=True)
class JobLog:
    """A labelled log. ``roots``: each of them may be called the root; none where unknown, healthy,
    or not said. ``decisive``: {line number, from 1: the labels it proves}, empty where not said.
    """

    text: str
    labels: frozenset[str]
    roots: frozenset[str]
    failed: bool
    origin: str
    form: str = "plain"
    decisive: Mapping[int, frozenset[str]] = field(default_factory=dict)
    family: str = ""

    @property
    def healthy(self) -> bool:
        return not self.failed


@dataclass(frozen=True)
class Parts:
    """Families of one part of the split, of both sources."""

    catalogue: Catalogue
    real: tuple[JobLog, ...]

    @property
    def names(self) -> list[str]:
        return sorted(
            {f.name for f in self.catalogue.families} | {f"real:{log.family}" for log in self.real}
        )


@dataclass(frozen=True)
class Split:
    train: Parts
    tune: Parts
    test: Parts


def split_corpus(seed: int, *, learn_all: bool = False) -> Split:
    """Train, tune and test: no family of either source is in two of them.

    ``learn_all``: what would judge is learnt as well, and nothing judges.

    Raises: DataFileError: a file of the corpus cannot be read.
    """
    train, held = hold_out(load_catalogue(), seed, _HELD_OUT_SHARE)
    tune, test = hold_out(held, seed + 1, 0.5)
    part_of = _real_parts(read_provoked(), seed)
    real: dict[str, list[JobLog]] = {"train": [], "tune": [], "test": []}
    for log in read_provoked():
        real[part_of[log.family]].append(log)
    if learn_all:
        train, test = Catalogue(train.families + test.families), Catalogue(())
        real["train"], real["test"] = real["train"] + real["test"], []
    return Split(
        Parts(train, tuple(real["train"])),
        Parts(tune, tuple(real["tune"])),
        Parts(test, tuple(real["test"])),
    )


def _real_parts(logs: Sequence[JobLog], seed: int) -> dict[str, str]:
    """{family: part}; of each label's families a share, the only family of a label is a test."""
    by_group: dict[str, set[str]] = {}
    for log in logs:
        by_group.setdefault(log.family.partition("/")[0], set()).add(log.family)
    parts: dict[str, str] = {}
    for families in by_group.values():
        order = sorted(families, key=lambda name: zlib.crc32(f"{seed}:real:{name}".encode()))
        tests = math.ceil(len(order) * _REAL_TEST_SHARE)
        tunes = round(len(order) * _REAL_TUNE_SHARE)
        for position, family in enumerate(order):
            later = "tune" if position < tests + tunes else "train"
            parts[family] = "test" if position < tests else later
    return parts


def read_provoked(path: Path = PROVOKED_FILE) -> list[JobLog]:
    """Logs of programs that really ran. Raises DataFileError."""
    logs = []
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataFileError(
            "corpus file cannot be read", where=str(path), got=str(error)
        ) from error
    for number, row in enumerate(rows, start=1):
        try:
            document = json.loads(row)
            decisive: dict[int, frozenset[str]] = {}
            for label, lines in document["proofs"].items():
                for line in lines:
                    decisive[line] = decisive.get(line, frozenset()) | {label}
            logs.append(
                JobLog(
                    document["text"],
                    frozenset(document["labels"]),
                    frozenset([document["root"]] if document["root"] else []),
                    bool(document["failed"]),
                    REAL,
                    _form_of(document["text"]),
                    decisive,
                    document["family"],
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFileError(
                "no row of the corpus", where=f"{path}:{number}", got=repr(error)
            ) from error
    return logs


def _form_of(text: str) -> str:
    """How a real log is written, in the words of the composer."""
    if "\r" in text:
        return "progress-bar"
    if any(line.startswith("{") and line.endswith("}") for line in text.split("\n")):
        return "json"
    if "torch.distributed" in text or "[rank" in text or "local_rank" in text:
        return "ranks"
    return "traceback" if "Traceback (most" in text else "plain"


def compose_job_logs(catalogue: Catalogue, seed: int, count: int) -> list[JobLog]:
    """``count`` composed logs of those families, the same for a seed."""
    logs = compose_logs(np.random.default_rng([seed, 17]), count, catalogue)
    return [as_job_log(log) for log in logs]


def as_job_log(log: ComposedLog) -> JobLog:
    return JobLog(
        log.text,
        log.labels,
        log.root_labels & log.labels,
        log.failed,
        COMPOSED,
        log.form,
        log.decisive,
        log.families[0] if log.families else "healthy",
    )


def read_seed_files(source: DataSource, report: RowReport) -> tuple[list[JobLog], list[DataFile]]:
    """Rows of ``label,label<TAB>text`` files: the named file, or rca/*.tsv of the folder."""
    if source.root is None:
        return [], []
    paths = [source.root] if source.origin == "file" else sorted(source.root.glob("rca/*.tsv"))
    logs: list[JobLog] = []
    files: list[DataFile] = []
    for path in paths:
        rows = read_labelled_tsv(path, LABELS, report, multiple=True)
        for row in rows:
            labels = frozenset(row.labels)
            logs.append(JobLog(row.text, labels, labels, bool(row.labels), path.name))
        name = path.name if source.origin == "file" else str(path.relative_to(source.root))
        files.append(DataFile(path=name, sha256=sha256_of(path), rows=len(rows), role="train"))
    return logs, files


def read_examples(source: DataSource) -> tuple[list[JobLog], list[DataFile]]:
    """The labelled examples of the data folder: only ever a test set."""
    if source.root is None or source.origin == "file":
        return [], []
    path = source.root / EXAMPLES_FILE
    if not path.is_file():
        return [], []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    logs = [
        JobLog(
            row["text"],
            frozenset(row["labels"]),
            frozenset(),
            bool(row["labels"]),
            EXAMPLES,
            row["origin"],
        )
        for row in rows
    ]
    digest = sha256_of(path)
    return logs, [DataFile(path=EXAMPLES_FILE, sha256=digest, rows=len(logs), role="test")]


def corpus_files() -> list[DataFile]:
    """The corpus' own sources: the catalogue's families, and the provoked logs."""
    files = [
        DataFile(
            path=f"catalogue:{path.name}",
            sha256=sha256_of(path),
            rows=sum(
                line.startswith("== ") for line in path.read_text(encoding="utf-8").splitlines()
            ),
            role="train",
        )
        for path in sorted(FOLDER.glob("*.txt"))
    ]
    rows = len(PROVOKED_FILE.read_text(encoding="utf-8").splitlines())
    return [
        *files,
        DataFile(
            path=f"corpus:{PROVOKED_FILE.name}",
            sha256=sha256_of(PROVOKED_FILE),
            rows=rows,
            role="train",
        ),
    ]


def target_of(labels: frozenset[str]) -> tuple[float, ...]:
    return tuple(float(label in labels) for label in LABELS)
