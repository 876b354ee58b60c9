"""Untrusted text in a message: it is read as text, wherever the message is shown.

Chats do not agree on how their markup is escaped (DingTalk, Feishu and Slack each leave out some
of CommonMark's ways), so in text and markdown the characters that could begin a link, a tag or a
mention are replaced by look-alikes that begin nothing anywhere. HTML is escaped, as HTML can be.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from services.notify.config import Form

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Control characters, direction marks, half pairs, unassigned ones, line separators."""
_TAG = re.compile(r"<(?=[!/?@#a-zA-Z])")
_ENTITY = re.compile(r"&(?=[#a-zA-Z])")
_LOOK_ALIKE = str.maketrans(
    {
        "<": "＜", ">": "＞", "&": "＆", "@": "＠", "[": "［", "]": "］", "`": "ˋ", "*": "∗",
        "~": "∼", "#": "＃", "|": "｜", "\\": "＼", "!": "！", "$": "＄",
    }
)  # fmt: skip
_IN_CODE = str.maketrans(
    {"<": "＜", ">": "＞", "@": "＠", "[": "［", "]": "］", "`": "ˋ", "\\": "＼"}
)
_UNDERSCORE = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
_LINE_START = re.compile(r"^([-+=:]|\d+[.)])")


def clean(value: Any) -> str:
    """One line of visible characters."""
    text = _ANSI.sub("", str(value))
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if unicodedata.category(c) in _UNSEEN else c for c in text)
    return " ".join(text.split())


def plain(value: Any) -> str:
    """For chats that read text: no tag, no entity, no mention."""
    text = clean(value).replace("@", "＠")
    return _ENTITY.sub("＆", _TAG.sub("＜", text))


def markdown(value: Any) -> str:
    """For prose in markdown: no markup of any dialect."""
    text = _UNDERSCORE.sub("＿", clean(value).translate(_LOOK_ALIKE))
    return _LINE_START.sub("\u200b\\1", text)


def markdown_code(value: Any) -> Markup:
    """A code span: names and lines of a log, as exact as the dialects allow."""
    text = clean(value).translate(_IN_CODE)
    return Markup(f"`{text}`") if text else Markup("")


def title(value: Any) -> str:
    """For the one line that each service formats in its own way."""
    return clean(value).translate(_LOOK_ALIKE)


ESCAPES: dict[Form, Callable[[Any], str]] = {
    "text": plain,
    "markdown": markdown,
    "html": lambda value: str(escape(clean(value))),
}


def finalizer(form: Form) -> Callable[[Any], Any]:
    """What a template puts out is escaped, unless it is Markup of ours."""
    chosen = ESCAPES[form]

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else Markup(chosen(value))

    return finalize
