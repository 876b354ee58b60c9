"""``Catalogue``: every sentence of the page in Chinese and English, from ``assets/strings.json``.

The template reads it here, the scripts read the same file in the browser.
"""

from __future__ import annotations

import json
from pathlib import Path

LANGUAGES = ("en", "zh")
STRINGS_FILE = Path(__file__).with_name("assets") / "strings.json"


class Catalogue:
    """``text(key, language)``; the file is ``{key: {"en": …, "zh": …}}``."""

    def __init__(self, path: Path = STRINGS_FILE) -> None:
        self._texts: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))

    def text(self, key: str, language: str) -> str:
        """Raises KeyError: a key that is not in the file."""
        return self._texts[key][language]


def preferred_language(accept_language: str, remembered: str | None = None) -> str:
    """ "zh" or "en": what the visitor chose before, else what the browser asks for most, else en.

    accept_language: the header, such as ``zh-CN,zh;q=0.9,en;q=0.5``
    """
    if remembered in LANGUAGES:
        return remembered
    wanted: list[tuple[float, str]] = []
    for part in accept_language.split(","):
        tag, _, parameter = part.strip().partition(";")
        name, _, weight = parameter.strip().partition("=")
        language = tag.strip().lower().partition("-")[0]
        try:
            quality = float(weight) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and quality > 0:
            wanted.append((quality, language))
    # max keeps the first of equals: the header's own order.
    return max(wanted, key=lambda pair: pair[0])[1] if wanted else "en"
