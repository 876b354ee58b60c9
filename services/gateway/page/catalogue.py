"""``Catalogue``: every sentence of the page in Chinese and English, from ``assets/strings.json``.

The template reads it here, the scripts read the same file in the browser.
"""

from __future__ import annotations

import json
from pathlib import Path

from services.web.problem import preferred_language

LANGUAGES = ("en", "zh")
STRINGS_FILE = Path(__file__).with_name("assets") / "strings.json"


class Catalogue:
    """``text(key, language)``; the file is ``{key: {"en": …, "zh": …}}``."""

    def __init__(self, path: Path = STRINGS_FILE) -> None:
        self._texts: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))

    def text(self, key: str, language: str) -> str:
        """Raises KeyError: a key that is not in the file."""
        return self._texts[key][language]


def document_language(accept_language: str, remembered: str | None = None) -> str:
    """zh or en: what the visitor chose before, else what the browser asks for most, else en."""
    if remembered in LANGUAGES:
        return str(remembered)
    return preferred_language(accept_language, "en")
