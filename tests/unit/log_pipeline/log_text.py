"""Generated log lines: every shape the masking rules know, beside and inside one another."""

from __future__ import annotations

from hypothesis import strategies as st

_DIGITS = st.text("0123456789", min_size=1, max_size=20)
_HEX = st.text("0123456789abcdefABCDEFxX-:._", min_size=1, max_size=24)
_SHAPES = st.sampled_from(
    [
        "2005-06-03-15.42.50.675872", "2016-09-28T04:30:30.123Z", "2015/07/29 17:41:44,747",
        "Jun 14 15:16:01", "Sun Dec 04 04:47:44 2005", "17/06/09 20:10:40", "10.30 16:49:06",
        "15:42:50", "blk_-1608999687919862906", "192.168.0.1:80/24", "fe80::1:2:3:4:5",
        "0000:01:00.0", "00:1a:2b:3c:4d:5e", "0x7f00ff", "38101a0b-2096-447d-96ea-a692162415ae",
        "https://a.b/c?d=1", "/var/log/x.1", "C:\\a\\b", "0.000", "0.0", "00", "0", "1,234,567",
        "1,2345", "12,34", "2005-06-030", "0.00.50", "1.0.0", "node/link/1", "<num>", "<time>5",
        "<num>0", "2005-06-030x1f", "+0800", "(0)", "$1", "${0}", "a1b2", "v2.0-rc1", "0,123",
    ]
)  # fmt: skip
_GLUE = st.sampled_from([" ", "  ", "\t", "", "", ".", ",", ":", "-", "/", "=", "_", "[", "]"])
_WORDS = st.sampled_from(["error", "on", "core", "节点", "掉卡", "，", "磁盘", "é", "\u200b", "Ⅷ"])
_ANY = st.text(max_size=6)


def texts() -> st.SearchStrategy[str]:
    """Unicode text, without line ends."""
    part = st.one_of(_SHAPES, _SHAPES, _DIGITS, _HEX, _WORDS, _GLUE, _GLUE, _ANY)
    joined = st.lists(part, max_size=12).map("".join)
    return joined.map(lambda text: text.replace("\n", " ").replace("\r", " "))


def plain_texts() -> st.SearchStrategy[str]:
    """Printable ASCII and tabs: what almost every line of a log is made of."""
    part = st.one_of(
        _SHAPES, _SHAPES, _DIGITS, _HEX, _GLUE, _GLUE, st.text(" !~abz019", max_size=4)
    )
    return st.lists(part, max_size=12).map("".join)


def raw_lines() -> st.SearchStrategy[bytes]:
    """Bytes of any kind, without line ends."""
    return st.one_of(
        texts().map(lambda text: text.encode("utf-8", "replace")),
        plain_texts().map(str.encode),
        st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")),
    )
