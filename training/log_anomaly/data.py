"""What is learnt from and what is held out: real systems' lines, and the vocabulary's messages.

Real rows are de-duplicated by signature (their words without anything variable), and a signature
is on one side of the split only. Files in time order are split by it: what is first seen in the
last part is validation. A message of the vocabulary is held out in both its languages.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import InputError
from contract.manifest import DataFile, sha256_of
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.log_anomaly.compose import Composer, fill, random_header, slots_as_numbers
from training.log_anomaly.systems import (
    BGL,
    BGL_TEMPLATES,
    SYSTEM_FILES,
    VOCABULARY,
    LogRow,
    read_labelled_lines,
    signature,
    words_of,
)
from training.log_anomaly.vocabulary import (
    GRADES,
    Grade,
    Message,
    load_messages,
    vocabulary_sha256,
)
from training.text.trainer import Sampler, TextExample

VALIDATION_SHARE = 0.3
MESSAGE_VALIDATION_SHARE = 0.1
REAL_SHARE = 0.35
# A signature shorter than this may stand in a line by chance.
_TELLING_CHARACTERS = 12


@dataclass(frozen=True)
class Twins:
    """One held-out message, filled in, in both languages."""

    english: str
    chinese: str
    grade: Grade


@dataclass(frozen=True)
class Corpus:
    """``validation``: real rows held out; ``twins``: of the held-out messages."""

    train: list[LogRow]
    validation: list[LogRow]
    messages: list[Message]
    twins: list[Twins]
    files: list[DataFile]

    @property
    def generated(self) -> bool:
        """Whether there is no real row at all."""
        return not self.train and not self.validation

    def held_out_rows(self) -> list[LogRow]:
        """Everything held out: real rows, then the twins, English and Chinese."""
        composed = [
            LogRow(text, (twins.grade,), VOCABULARY)
            for twins in self.twins
            for text in (twins.english, twins.chinese)
        ]
        return [*self.validation, *composed]


def load_corpus(
    source: DataSource, report: RowReport, seed: int, leave_out: Collection[str] = ()
) -> Corpus:
    """Training and validation rows of ``source`` without the systems of ``leave_out``.

    Raises:
        DataFileError: a file that cannot be read, or (strict) a bad row.
        InputError: an unknown system to leave out.
    """
    left_out = _whole_systems(leave_out)
    files, timed, untimed = _read_real(source, report, left_out)
    train, validation = split(timed, untimed)
    messages, held_out = split_messages(_unknown_to(left_out, source, load_messages()))
    generator = np.random.default_rng([seed, 17])
    twins = [
        Twins(fill(m.english, generator), fill(m.chinese, generator), m.grade) for m in held_out
    ]
    note = DataFile(
        path="vocabulary:log_anomaly",
        sha256=vocabulary_sha256(),
        rows=len(messages),
        role="train",
    )
    return Corpus(train, validation, messages, twins, [*files, note])


def _unknown_to(
    left_out: Collection[str], source: DataSource, messages: Sequence[Message]
) -> Sequence[Message]:
    """The messages that no system left out prints: a system is not unseen while they are learnt."""
    printed: set[str] = set()
    for file in SYSTEM_FILES:
        path = (source.root or Path()) / "logs" / file.path
        if file.system in left_out and path.is_file():
            rows = file.read(path, RowReport())
            printed |= {" ".join(words_of(row.message)) for row in rows}
    return [message for message in messages if not _is_among(printed, message)]


def _is_among(printed: Collection[str], message: Message) -> bool:
    """Whether a printed line holds the message's first words: before them may be a header."""
    own = signature(slots_as_numbers(message.english))
    return len(own) >= _TELLING_CHARACTERS and any(own in line for line in printed)


def split_messages(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Messages to learn and messages held out, by the hash of their English wording."""
    kept: list[Message] = []
    held_out: list[Message] = []
    for message in messages:
        late = zlib.crc32(message.english.encode()) % 1000 < 1000 * MESSAGE_VALIDATION_SHARE
        (held_out if late else kept).append(message)
    return kept, held_out


def make_sampler(rows: Sequence[LogRow], messages: Sequence[Message]) -> Sampler:
    """Draws real rows in ``REAL_SHARE`` of the cases (weight 1/√(size of their group)), else
    composed lines; now with, now without a header. A target marks the grades a line may have.
    """
    groups = [f"{row.system} {row.anomaly}" for row in rows]
    sizes = Counter(groups)
    weights = np.array([1 / np.sqrt(sizes[group]) for group in groups])
    weights = weights / weights.sum()
    composer = Composer(messages)

    def one(generator: np.random.Generator) -> TextExample:
        if len(rows) and generator.random() < REAL_SHARE:
            row = rows[int(generator.choice(len(rows), p=weights))]
            return TextExample(_with_some_header(row, generator), target_of(row.grades))
        line = composer.draw(generator)
        return TextExample(line.text, target_of((line.message.grade,)))

    return lambda generator, count: [one(generator) for _ in range(count)]


def target_of(grades: Collection[Grade]) -> tuple[float, ...]:
    """1 for each grade that is allowed."""
    return tuple(float(grade in grades) for grade in GRADES)


def split(timed: list[list[LogRow]], untimed: list[LogRow]) -> tuple[list[LogRow], list[LogRow]]:
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


def _with_some_header(row: LogRow, generator: np.random.Generator) -> str:
    chance = generator.random()
    if row.header and chance < 0.4:
        return row.text
    if chance < 0.7:
        # A foreign header: only the message may decide.
        return random_header(generator, "warning") + row.message
    return row.message


def _whole_systems(leave_out: Collection[str]) -> set[str]:
    """The names; BGL's lines and its templates are one system."""
    systems = {file.system for file in SYSTEM_FILES}
    unknown = sorted(set(leave_out) - systems)
    if unknown:
        raise InputError(
            "unknown system",
            where="--leave-out",
            expected=f"some of {', '.join(sorted(systems))}",
            got=", ".join(unknown),
        )
    together = {BGL, BGL_TEMPLATES}
    return set(leave_out) | (together if together & set(leave_out) else set())


def _read_real(
    source: DataSource, report: RowReport, leave_out: Collection[str]
) -> tuple[list[DataFile], list[list[LogRow]], list[LogRow]]:
    if source.root is None:
        return [], [], []
    if source.origin == "file":
        rows = read_labelled_lines(source.root, report)
        return [_data_file(source.root, source.root.parent, len(rows))], [], rows
    logs = source.root / "logs"
    files: list[DataFile] = []
    timed: list[list[LogRow]] = []
    untimed: list[LogRow] = []
    for file in SYSTEM_FILES:
        path = logs / file.path
        if file.system in leave_out or not path.is_file():
            continue
        rows = file.read(path, report)
        files.append(_data_file(path, source.root, len(rows)))
        if file.in_time_order:
            timed.append(rows)
        else:
            untimed += rows
    for path in sorted(logs.glob("*.tsv")):
        rows = read_labelled_lines(path, report)
        files.append(_data_file(path, source.root, len(rows)))
        untimed += rows
    return files, timed, untimed


def _data_file(path: Path, root: Path, rows: int) -> DataFile:
    return DataFile(
        path=str(path.relative_to(root)), sha256=sha256_of(path), rows=rows, role="train"
    )
