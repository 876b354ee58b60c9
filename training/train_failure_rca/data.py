"""Examples for training and validation: windows of composed logs, and the seed's TSV files.

Validation holds out whole signature families: the model must know a cause it never saw worded so.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from contract.manifest import DataFile, sha256_of
from training.data.labelled_tsv import read_labelled_tsv
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import Sampler, TextExample
from training.train_failure_rca.compose import ComposedLog, compose, compose_without_cause
from training.train_failure_rca.signatures import (
    FOLDER,
    LABELS,
    LabelledLine,
    Library,
    Signature,
)
from training.train_failure_rca.windows import LogLine, read_lines, windows_of

EXAMPLES_FILE = "rca/examples.jsonl"
_VALIDATION_SHARE = 0.25
# Shares of the draws that show no cause: without them every surprise becomes somebody's fault.
_HEALTHY_SHARE = 0.22
# Of the rest: proving lines alone, and with a few neighbours. Both teach faster than full windows,
# where the proof is one line among many.
_SINGLE_LINE_SHARE = 0.4
_EXCERPT_SHARE = 0.45
_EXCERPT_NEIGHBOURS = 3
# Of the draws without a cause, the short ones; a full window costs as much as four of them.
_SHORT_HEALTHY_SHARE = 0.6


@dataclass(frozen=True)
class JobLog:
    """``root`` is None where unknown or healthy; ``origin`` names where the log is from."""

    text: str
    labels: frozenset[str]
    root: str | None
    failed: bool
    origin: str


@dataclass(frozen=True)
class Families:
    """Signature families, split: no family is on both sides."""

    train: frozenset[str]
    validation: frozenset[str]


def split_families(library: Library, seed: int) -> Families:
    """A quarter of each label's families (at least one) is held out, the same for a seed."""
    held: set[str] = set()
    for label in LABELS:
        families = sorted(
            {s.family for s in library.signatures if s.family.startswith(f"{label}/")}
        )
        order = sorted(families, key=lambda family: zlib.crc32(f"{seed}:{family}".encode()))
        held.update(order[: max(1, round(len(order) * _VALIDATION_SHARE))])
    everything = frozenset(s.family for s in library.signatures)
    return Families(everything - held, frozenset(held))


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
            root = row.labels[0] if row.labels else None
            logs.append(JobLog(row.text, frozenset(row.labels), root, bool(row.labels), path.name))
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
        JobLog(row["text"], frozenset(row["labels"]), None, bool(row["labels"]), row["origin"])
        for row in rows
    ]
    digest = sha256_of(path)
    return logs, [DataFile(path=EXAMPLES_FILE, sha256=digest, rows=len(logs), role="test")]


def signature_files() -> list[DataFile]:
    """The composed corpus' own sources."""
    return [
        DataFile(
            path=f"generator:{path.name}",
            sha256=sha256_of(path),
            rows=path.read_text(encoding="utf-8").count("[[signature]]"),
            role="train",
        )
        for path in sorted(FOLDER.glob("*.toml"))
    ]


def compose_logs(
    library: Library, families: frozenset[str], seed: int, *, per_label: int, without_cause: int
) -> list[tuple[ComposedLog, Signature | None]]:
    """``per_label`` failed logs of each label, and ``without_cause`` healthy or unknown ones."""
    generator = np.random.default_rng([seed, 17])
    cascades = [s for s in library.signatures if s.cascade and s.family in families]
    logs: list[tuple[ComposedLog, Signature | None]] = []
    for label in LABELS:
        own = library.of(label, families)
        for index in range(per_label if own else 0):
            signature = own[index % len(own)]
            logs.append((compose(generator, library, signature, cascades), signature))
    for index in range(without_cause):
        log = compose_without_cause(generator, library, failed=index % 3 == 2)
        logs.append((log, None))
    return logs


def as_job_logs(logs: Sequence[tuple[ComposedLog, Signature | None]]) -> list[JobLog]:
    return [JobLog(log.text, log.labels, log.root, log.failed, "composed") for log, _ in logs]


def make_sampler(
    logs: Sequence[ComposedLog],
    rows: Sequence[JobLog],
    tokenizer: MaskedTokenizer,
    *,
    progress: bool,
) -> Sampler:
    """Draws windows: labels evenly, single proving lines and windows without a cause between.

    A window is labelled by the proofs it holds, so that a traceback's upper half proves nothing.
    """
    windows: dict[str, list[TextExample]] = {label: [] for label in LABELS}
    excerpts: dict[str, list[TextExample]] = {label: [] for label in LABELS}
    single: dict[str, list[TextExample]] = {label: [] for label in LABELS}
    without: list[TextExample] = []
    without_short: list[TextExample] = []
    cut = np.random.default_rng(len(logs))
    for log in tqdm(logs, desc="windows", unit="log", disable=not progress):
        proofs = {number: line for number, line in enumerate(log.lines, 1) if line.labels}
        for window in windows_of(log.text, tokenizer):
            _add(_example(window.lines, proofs), windows, without)
        # As the front reads them: unwrapped from whatever the collector shipped.
        lines = read_lines(log.text)
        for position, line in enumerate(lines):
            before, after = cut.integers(0, _EXCERPT_NEIGHBOURS + 1, size=2)
            near = _example(lines[max(0, position - before) : position + after + 1], proofs)
            if line.number in proofs:
                _add(near, excerpts, [])
                _add(_example([line], proofs), single, [])
            elif not any(near.target):
                without_short.append(near)
    for row in rows:
        # Where in the text the proof lies is not said: its largest window carries the labels.
        window = max(windows_of(row.text, tokenizer), key=lambda w: len(w.text))
        _add(TextExample(window.text, target_of(row.labels)), windows, without)
    known = [label for label in LABELS if windows[label]]

    def sample(generator: np.random.Generator, count: int) -> list[TextExample]:
        drawn: list[TextExample] = []
        for kind, form in generator.random((count, 2)):
            pool = without_short if form < _SHORT_HEALTHY_SHARE and without_short else without
            if kind > _HEALTHY_SHARE or not without:
                label = known[generator.integers(len(known))]
                pool = windows[label]
                if form < _SINGLE_LINE_SHARE:
                    pool = single[label] or pool
                elif form < _SINGLE_LINE_SHARE + _EXCERPT_SHARE:
                    pool = excerpts[label] or pool
            drawn.append(pool[generator.integers(len(pool))])
        return drawn

    return sample


def _example(lines: Sequence[LogLine], proofs: Mapping[int, LabelledLine]) -> TextExample:
    labels = frozenset().union(*(proofs[n.number].labels for n in lines if n.number in proofs))
    return TextExample("\n".join(line.text for line in lines), target_of(labels))


def _add(
    example: TextExample, by_label: dict[str, list[TextExample]], without: list[TextExample]
) -> None:
    for label, present in zip(LABELS, example.target, strict=True):
        if present:
            by_label[label].append(example)
    if not any(example.target):
        without.append(example)


def target_of(labels: frozenset[str]) -> tuple[float, ...]:
    return tuple(float(label in labels) for label in LABELS)
