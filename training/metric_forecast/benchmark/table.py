"""What every benchmark prints: a Markdown table whose columns line up, and the machine's name."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from contract.errors import InputError


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, all others to the right."""
    table = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if i == 0 else "-" * max(1, width - 1) + ":" for i, width in enumerate(widths)
    ]
    return "\n".join([line(table[0]), line(rule), *(line(row) for row in table[1:])])


def describe_machine(threads: int) -> str:
    """``Intel(R) Xeon(R) …, 2 cores, 1 thread``."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = os.cpu_count() or 1
    return (
        f"{name}, {cores} core{'s' if cores != 1 else ''},"
        f" {threads} thread{'s' if threads != 1 else ''}"
    )


def parse_seeds(words: str) -> list[int]:
    """``0,1,2`` → [0, 1, 2]; "" → []. Raises InputError."""
    try:
        return [int(word) for word in words.split(",") if word.strip()]
    except ValueError as error:
        raise InputError(
            "not a list of seeds", where="--train-seeds", expected="0,1,2", got=words
        ) from error
