"""Plain tables for a terminal; a Chinese character is two columns wide."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

RED, GREEN, YELLOW, RESET = (f"\x1b[{code}m" for code in ("1;31", "32", "33", "0"))


def width(text: str) -> int:
    """Columns a terminal needs for ``text``."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fit(text: str, columns: int) -> str:
    """``text`` on one line in at most ``columns``, cut with an ellipsis."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if width(text) <= columns:
        return text
    cut = ""
    for character in text:
        if width(cut + character) > columns - 1:
            break
        cut += character
    return cut + "…"


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    widest: int = 100,
    colours: Mapping[str, str] | None = None,
) -> str:
    """Columns as wide as their longest cell, each at most ``widest``.

    colours: escape codes by what a whole cell says, for a terminal
    """
    painted = colours or {}

    def paint(cell: str, spaces: str) -> str:
        return f"{painted[cell]}{cell}{RESET}{spaces}" if cell in painted else cell + spaces

    cells = [[fit(cell, widest) for cell in row] for row in [header, *rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    padding = [
        [" " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)]
        for row in cells
    ]
    lines = [
        "  ".join(map(paint, row, spaces)).rstrip()
        for row, spaces in zip(cells, padding, strict=True)
    ]
    lines.insert(1, "  ".join("-" * columns for columns in widths))
    return "\n".join(lines)
