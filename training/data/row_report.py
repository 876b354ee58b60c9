"""Counts good rows and names bad ones: nothing good is lost, nothing bad goes unsaid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from contract.errors import DataFileError


class SkippedRow(NamedTuple):
    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass
class RowReport:
    """Filled by the readers. ``strict`` turns the first bad row into a DataFileError."""

    strict: bool = False
    rows: int = 0
    skipped: list[SkippedRow] = field(default_factory=list)

    def accept(self, count: int = 1) -> None:
        self.rows += count

    def reject(self, path: Path, line: int, reason: str) -> None:
        """Note a bad row (``line`` counts from 1). Raises DataFileError when strict."""
        if self.strict:
            raise DataFileError(
                reason, where=f"{path}:{line}", next_command="mend the row, or leave out --strict"
            )
        self.skipped.append(SkippedRow(str(path), line, reason))

    def describe(self) -> str:
        """``1,203 rows, 2 skipped (first: x.csv:17: 'abc' is not a number)``."""
        if not self.skipped:
            return f"{self.rows:,} rows"
        return f"{self.rows:,} rows, {len(self.skipped):,} skipped (first: {self.skipped[0]})"
