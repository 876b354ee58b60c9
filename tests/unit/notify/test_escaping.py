"""Nothing that a log says is markup, a link or a mention, wherever it is shown."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from contract.errors import ConfigError
from services.notify.causes import CauseTable
from services.notify.config import Form
from services.notify.escaping import clean, markdown, plain
from services.notify.notification import Fact, Notification
from services.notify.rendering import Message, Renderer

PIECES = [
    "<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "<!channel>", "<@U024BE7LH>",
    "<!subteam^S1|x>", '<at user_id="all">x</at>', "<at id=all></at>", "@all", "@everyone", "@here",
    "@13800000000", "[click](http://evil.example/)", "![](http://evil.example/x.png)",
    "[x]: http://evil.example", "<http://evil.example|bank>", "**bold**", "__b__", "_i_", "~~s~~",
    "```", "``", "`", "# head", "\n# head\n", "\n- item", "\n> quote", "\n1. one",
    "| a | b |\n|-|-|",
    "&lt;at id=all&gt;", "&#64;all", "&#x40;here", "\\", "\\`", "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil.example\x07here\x1b]8;;\x07", "\u202egpj.exe", "\u200b", "\u2028# x",
    "\r\n",
    "Subject: x\r\nBcc: all@evil.example", "{{ 7*7 }}", "{% raw %}", "$(rm -rf /)", "\x00", "||x||",
    "<font color='warning'>x</font>", "<a href='http://evil.example'>x</a>", "中文 【】", "=====",
    "-----", "***", "<!--", "-->", "]]>", "<![CDATA[", "CUDA error: out of memory",
    "/data/a_b_c.pt",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), min_size=1, max_size=6).map(
    "".join
)
ALLOWED_HTML = {"table", "tr", "th", "td", "b", "p", "pre", "ul", "li"}


def rendered(form: Form, text: str) -> list[Message]:
    renderer = Renderer(form, ("zh", "en"), "sre", CauseTable())
    notification = Notification(
        cause=text,
        subject=text,
        created_at=0.0,
        node=text,
        user=text,
        summary={"zh": text, "en": text},
        action={"en": text},
        evidence=(text, text),
        facts=(Fact(name={"en": text}, value=text),),
    )
    return [
        renderer.message(notification),
        renderer.summary([notification] * 3, "on_node"),
        renderer.summary([notification] * 3, "held"),
    ]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.others: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
@example("</pre><script>alert(1)</script>")
def test_html_holds_no_tag_of_the_log(text: str) -> None:
    for message in rendered("html", text):
        seen = Tags()
        seen.feed(message.body)
        seen.close()
        assert set(seen.tags) <= ALLOWED_HTML
        assert set(seen.attributes) <= {"align"}
        assert seen.others == []
        check_title(message.title)


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
@example("<!channel> [a](http://b) @all")
def test_text_holds_no_tag_and_no_mention(text: str) -> None:
    for message in rendered("text", text):
        assert "@" not in message.body
        assert not re.search(r"<[!/?@#a-zA-Z]", message.body)
        assert not re.search(r"&[#a-zA-Z]+\w*;", message.body)
        check_visible(message.body)
        check_title(message.title)


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
@example("[x](http://evil.example)")
@example("`]( <at id=all>")
@example("``a``")
@example("1. a\n- b")
def test_markdown_holds_no_markup_of_the_log(text: str) -> None:
    """As CommonMark reads it, and as a chat might that knows no code spans."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for message in rendered("markdown", text):
        kinds = set()
        for token in parser.parse(message.body):
            kinds.add(token.type)
            kinds |= {child.type for child in token.children or ()}
        assert kinds <= {
            "paragraph_open", "paragraph_close", "inline", "text", "softbreak", "strong_open",
            "strong_close", "code_inline",
        }  # fmt: skip
        assert not re.search(r"[@<>\[\]]", message.body)
        outside_code = re.sub(r"`[^`]*`", "", message.body)
        assert "*" not in re.sub(r"\*\*[^*\n]*\*\*", "", outside_code)
        check_visible(message.body)
        check_title(message.title)


def check_title(title: str) -> None:
    assert not re.search(r"[<>&@*`\[\]\\|#~]", title.removeprefix("[Presage] "))
    assert "\n" not in title
    check_visible(title)


def check_visible(text: str) -> None:
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text
    )


@given(HOSTILE)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert plain(plain(text)) == plain(text)
    assert markdown(markdown(text)) == markdown(text)


def test_lines_of_a_log_stay_readable() -> None:
    line = 'File "/data/train_v2.py", line 7: RuntimeError: CUDA error 700 (rank=3) a*b & c < d'
    assert plain(line) == line
    assert plain("in <module> user@host") == "in ＜module> user＠host"
    assert markdown("set num_workers=4") == "set num_workers=4"


def test_a_folder_of_own_templates_is_escaped_as_well(tmp_path: Path) -> None:
    (tmp_path / "message.html.j2").write_text("<b>{{ n.subject }}</b>")
    renderer = Renderer("html", ("en",), "sre", CauseTable(), templates=tmp_path)
    body = renderer.message(Notification(cause="OOM", subject="<i>", created_at=0.0)).body
    assert body == "<b>&lt;i&gt;</b>"
    (tmp_path / "message.html.j2").write_text("{% for %}")
    with pytest.raises(ConfigError, match="template"):
        Renderer("html", ("en",), "sre", CauseTable(), templates=tmp_path)


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_body_fits_its_channel(form: Form) -> None:
    renderer = Renderer(form, ("zh", "en"), "sre", CauseTable(), largest_bytes=2048)
    notification = Notification(
        cause="OOM",
        subject="作业" * 100,
        created_at=0.0,
        evidence=tuple(f"{n} " + "显存不足" * 60 for n in range(20)),
        action={"zh": "换卡" * 900},
    )
    body = renderer.message(notification).body
    assert len(body.encode()) <= 2048
    few = notification.model_copy(update={"action": {}, "subject": "job"})
    body = renderer.message(few).body
    assert 1000 < len(body.encode()) <= 2048
    assert "0 显存不足" in body
    summary = renderer.summary([notification] * 40, "held", beyond=5)
    assert len(summary.body.encode()) <= 2048
    assert "45" in summary.title


def test_both_languages_and_one() -> None:
    notification = Notification(
        cause="Disk_Full", subject="job", created_at=0.0, action={"zh": "清理", "en": "clean up"}
    )
    both = Renderer("text", ("zh", "en"), "user", CauseTable()).message(notification).body
    english = Renderer("text", ("en",), "user", CauseTable()).message(notification).body
    assert "磁盘已满 / disk full" in both
    assert "清理" in both
    assert "clean up" in both
    assert english.isascii()


def test_a_link_is_http_or_none() -> None:
    with pytest.raises(ValueError, match="link"):
        Notification(cause="a", subject="b", created_at=0.0, link="javascript:alert(1)")
    with pytest.raises(ValueError, match="link"):
        Notification(cause="a", subject="b", created_at=0.0, link='http://a/"><script>')
    notification = Notification(
        cause="OOM", subject="b", created_at=0.0, link="https://presage.example/jobs/7?a=1&b=2"
    )
    html = Renderer("html", ("en",), "user", CauseTable()).message(notification).body
    assert '<a href="https://presage.example/jobs/7?a=1&amp;b=2">' in html
