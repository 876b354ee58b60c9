"""The page's sentences: all there, in both languages, and none left over."""

from __future__ import annotations

import json
import re

import pytest

from services.gateway.page.catalogue import LANGUAGES, STRINGS_FILE, document_language

PAGE = STRINGS_FILE.parents[1]
STRINGS: dict[str, dict[str, str]] = json.loads(STRINGS_FILE.read_text("utf-8"))
SOURCES = {
    path.name: path.read_text("utf-8")
    for path in [*PAGE.glob("assets/*.js"), *PAGE.glob("templates/*.html")]
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NOT_KEYS = re.compile(r"\.(css|js|json|svg|log|csv|tsv|py|main)$|^presage")


def used_keys() -> set[str]:
    """Keys in the sources; where a part is computed, every key that fits."""
    found: set[str] = set()
    for text in SOURCES.values():
        plain = re.sub(r"\$\{[^}]*\}", "*", text)
        plain = re.sub(
            r'tab ~ "\.(\w+)"|"tabs\." ~ tab',
            lambda m: f'"*.{m[1]}"' if m[1] else '"tabs.*"',
            plain,
        )
        for key in re.findall(r"""["'`]([a-z_*]+(?:\.[a-z_0-9*]+)+)["'`]""", plain):
            pattern = re.compile(
                re.escape(key).replace(r"\*", r"[a-z_0-9]+(?:\.[a-z_0-9]+)*") + "$"
            )
            fitting = {name for name in STRINGS if pattern.match(name)}
            if not fitting and not _NOT_KEYS.search(key):
                found.add(key)
            found |= fitting
    return found


def test_both_languages_say_everything() -> None:
    for key, texts in STRINGS.items():
        assert set(texts) == set(LANGUAGES), key
        assert all(texts.values()), key
        placeholders = [sorted(_PLACEHOLDER.findall(texts[language])) for language in LANGUAGES]
        assert placeholders[0] == placeholders[1], key


def test_every_key_that_is_used_exists_and_every_key_is_used() -> None:
    used = used_keys()
    assert used - set(STRINGS) == set()
    assert set(STRINGS) - used == set()


def test_chinese_is_chinese() -> None:
    same = {key for key, texts in STRINGS.items() if texts["en"] == texts["zh"]}
    with_words = {
        key for key in same if re.search("[A-Za-z]", _PLACEHOLDER.sub("", STRINGS[key]["en"]))
    }
    assert {key.rpartition(".")[0] or key for key in with_words} <= {
        "page", "forecast", "forecast.mode", "forecast.query"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("header", "remembered", "language"),
    [
        ("", None, "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", None, "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", None, "en"),
        ("fr, zh;q=0.3", None, "zh"),
        ("zh;q=0, en;q=0.1", None, "en"),
        ("en;q=0.1, zh;q=x", None, "en"),
        ("zh-TW", "en", "en"),
        ("en", "zh", "zh"),
        ("zh", "../etc", "zh"),
        (";;,=,q", None, "en"),
    ],
)
def test_the_language_of_the_document(header: str, remembered: str | None, language: str) -> None:
    assert document_language(header, remembered) == language


def test_no_script_parses_html() -> None:
    """Text enters the document as text. innerHTML and its like appear nowhere."""
    words = re.compile(
        r"(inner|outer|AdjacentH|setH)(HTML|TML)|document\.write|DOMParser|\beval\b|new Function"
    )
    offenders = {
        name: words.findall(text) for name, text in SOURCES.items() if name.endswith(".js")
    }
    assert not any(offenders.values()), offenders


def test_no_inline_code_and_nothing_foreign_in_the_template() -> None:
    template = (PAGE / "templates" / "page.html").read_text("utf-8")
    assert not re.search(
        r"<style|\bstyle=|\son\w+=|https?:|//\w", template.replace("http://www.w3.org", "")
    )
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", template))
    sheets = list((PAGE / "assets").glob("*.css"))
    assert not any(re.search(r"url\(|@import", sheet.read_text("utf-8")) for sheet in sheets)
