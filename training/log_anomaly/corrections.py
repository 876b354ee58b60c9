"""A user's corrections (``label<TAB>text``): read, checked against each other, drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.text_file import read_text
from training.log_anomaly.compose import random_header
from training.log_anomaly.data import target_of
from training.log_anomaly.systems import LABELS, NO_FAULT, LogRow, read_labelled_lines
from training.text.text_batch import MaskedTokenizer
from training.text.trainer import Sampler, TextExample

# Of what is drawn: corrections, then lines of the system that nobody has labelled; the rest is
# what the model learnt before, so that it does not forget it.
CORRECTIONS_SHARE, UNLABELLED_SHARE = 0.4, 0.25
_HEADER_SHARE = 0.3
_MOST_UNLABELLED = 2_000


def read_corrections(
    path: Path, report: RowReport, tokenizer: MaskedTokenizer
) -> tuple[list[LogRow], list[str]]:
    """The distinct corrections, and remarks about them for the user.

    Raises:
        DataFileError: no good row, or lines that are the same to the model with both labels.
    """
    first: dict[str, LogRow] = {}
    contradictions: list[str] = []
    repeats = 0
    for row in read_labelled_lines(path, report):
        masked = tokenizer.mask(row.text)
        known = first.setdefault(masked, row)
        if known.anomaly != row.anomaly:
            contradictions.append(f"{known.text[:60]!r} and {row.text[:60]!r}")
        elif known is not row:
            repeats += 1
    if contradictions:
        raise DataFileError(
            f"{len(contradictions)} lines are labelled both {LABELS[0]} and {LABELS[1]}"
            " (numbers, addresses and paths do not tell lines apart)",
            where=str(path),
            expected="one label per line",
            got="; ".join(contradictions[:3]),
            next_command="keep one of each pair and run the same command again",
        )
    rows = list(first.values())
    anomalies = sum(row.anomaly for row in rows)
    remarks = [f"{anomalies} {LABELS[1]}, {len(rows) - anomalies} {LABELS[0]}"]
    if repeats:
        remarks.append(f"{repeats} repeats dropped")
    if report.skipped:
        remarks.append(report.describe())
        remarks += [f"{item.file}:{item.line}: {item.reason}" for item in report.skipped[:20]]
    if anomalies in (0, len(rows)):
        missing = LABELS[0 if anomalies else 1]
        remarks.append(f"only one class: some {missing} lines of the same system would help")
    return rows, remarks


def read_unlabelled(
    path: Path, labelled: Sequence[LogRow], tokenizer: MaskedTokenizer
) -> list[LogRow]:
    """Distinct lines of the same system that nobody has labelled; taken for no fault, as nearly
    all of them are. Raises DataFileError."""
    known = {tokenizer.mask(row.text) for row in labelled}
    rows: dict[str, LogRow] = {}
    for line in read_text(path).split("\n"):
        masked = tokenizer.mask(line)
        if masked and masked not in known:
            rows.setdefault(masked, LogRow(line, NO_FAULT, path.stem))
        if len(rows) >= _MOST_UNLABELLED:
            break
    return list(rows.values())


def correcting_sampler(
    corrections: Sequence[LogRow], unlabelled: Sequence[LogRow], learnt: Sampler
) -> Sampler:
    """Corrections (both classes alike), unlabelled lines, and what was learnt before."""
    sides = [[row for row in corrections if row.anomaly == flag] for flag in (True, False)]
    sides = [side for side in sides if side]

    def one(generator: np.random.Generator) -> TextExample:
        chance = generator.random()
        if chance < CORRECTIONS_SHARE:
            side = sides[int(generator.integers(len(sides)))]
            row = side[int(generator.integers(len(side)))]
        elif unlabelled and chance < CORRECTIONS_SHARE + UNLABELLED_SHARE:
            row = unlabelled[int(generator.integers(len(unlabelled)))]
        else:
            return learnt(generator, 1)[0]
        header = random_header(generator, "warning") if generator.random() < _HEADER_SHARE else ""
        return TextExample(header + row.text, target_of(row.grades))

    return lambda generator, count: [one(generator) for _ in range(count)]
