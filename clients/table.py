"""Plain tables for a terminal; a Chinese character is two columns wide."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


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


def render(header: Sequence[str], rows: Sequence[Sequence[str]], *, widest: int = 100) -> str:
    """Columns as wide as their longest cell, each at most ``widest``."""
    cells = [[fit(cell, widest) for cell in row] for row in [header, *rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * columns for columns in widths))
    return "\n".join(lines)
