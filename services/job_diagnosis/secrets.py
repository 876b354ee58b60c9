"""``mask_secrets``: no token, key or password of a log is ever stored or told.

Rules find the place of a secret; the words around it stay, because they are evidence. Rather one
word too many than one secret: a masked word costs little. All rules are linear in the text, whoever
wrote it: fixed beginnings, possessive repeats, no nesting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MASK = b"[masked]"

_Span = tuple[int, int]

# --- by their own form; letter case counts -----------------------------------------------------
_FORMS = re.compile(
    rb"(?<![A-Za-z0-9])(?:"
    rb"(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{16}"  # AWS
    rb"|LTAI[A-Za-z0-9]{12,30}+|AKID[A-Za-z0-9]{13,40}+|AKLT[A-Za-z0-9_-]{20,60}+"  # Chinese clouds
    rb"|gh[pousr]_[A-Za-z0-9]{20,255}+|github_pat_[A-Za-z0-9_]{20,255}+"
    rb"|gl[a-z]{2,5}-[A-Za-z0-9_.-]{20,255}+"  # GitLab
    rb"|hf_[A-Za-z0-9]{20,255}+|api_org_[A-Za-z0-9]{20,255}+"  # Hugging Face
    rb"|xox[a-z]-[A-Za-z0-9-]{10,512}+|xapp-[A-Za-z0-9-]{10,512}+"  # Slack
    rb"|sk-[A-Za-z0-9_-]{20,512}+|[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}+"
    rb"|AIza[0-9A-Za-z_-]{30,60}+|ya29\.[0-9A-Za-z_-]{20,2048}+"  # Google
    rb"|npm_[A-Za-z0-9]{30,60}+|pypi-[A-Za-z0-9_-]{30,512}+|dckr_pat_[A-Za-z0-9_-]{20,255}+"
    rb"|dop_v1_[a-f0-9]{40,80}+|SG\.[A-Za-z0-9_-]{16,80}+\.[A-Za-z0-9_-]{16,80}+"
    rb"|SEC[0-9a-f]{60,64}+"  # DingTalk
    rb"|presage_[A-Za-z0-9_-]{40,60}+"
    rb"|eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,3}+"  # JWT
    rb"|[0-9]{8,10}+:AA[A-Za-z0-9_-]{30,40}+"  # Telegram
    rb")"
)
_WEBHOOKS = re.compile(
    rb"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|/open-apis/bot/v2/hook/"
    rb"|/webhook/send\?key=|discord(?:app)?\.com/api/webhooks/)([A-Za-z0-9/_-]++)"
)
# What precedes the last @ before the path, whatever a careless password has in it.
_URL_USER = re.compile(rb"://((?:[^\s/@\"'<>]{0,2048}+@)++)")

# --- by what is said before them; of lower-case text -------------------------------------------
_PREFIXED_TOKEN = (
    rb"(?:auth|access|refresh|api|hf|hub|github|gitlab|gh|session|security|secret|bot|personal"
    rb"|deploy|wandb|slack|private|bearer|jwt|csrf|xsrf|sas|registry|docker|npm|pypi|vault|kube"
    rb"|service|user|id|oauth2?|sts|modelscope)[_-]?token"
)
_WORD = (
    rb"(?P<word>pass(?:word|wd|phrase)|pwd|secret|credential|api[_-]?key|access[_-]?key"
    rb"|account[_-]?key|private[_-]?key|encryption[_-]?key|signing[_-]?key|auth[_-]?key|ssh[_-]?key"
    rb"|subscription[_-]?key|x-amz-(?:signature|credential|security-token)|[?&]sig(?:nature)?"
    rb"|" + _PREFIXED_TOKEN + rb"|"
    + "密码|口令|密钥|私钥|令牌|凭证|凭据".encode()
    + rb")"
)  # fmt: skip
_QUOTE = rb"(?:\\{0,4}+[\"'`])?+"
_SIGN = rb"[ \t]{0,16}+(?:=>|:=|==|[:=]|" + "：|＝|为|是".encode() + rb")[ \t]{0,16}+"
# In its quotes to the end of them, else to the next blank.
_VALUE = rb"(?:\\{0,4}+\"(?P<double>[^\"\n]++)|\\{0,4}+'(?P<single>[^'\n]++)|(?P<bare>[^\s\"']++))"
_SAID = re.compile(
    _WORD + rb"(?P<suffix>[a-z0-9_-]{0,40}+)\]?+" + _QUOTE + rb"\]?+" + _SIGN + _VALUE
)
_FLAG = re.compile(
    rb"(?<![a-z0-9-])--?[a-z0-9-]{0,40}?(?:password|passwd|passphrase|token|secret|api-?key"
    rb"|access-?key)[ \t]++" + _VALUE
)
_LOGIN = re.compile(
    rb"\b(?:sshpass[ \t]++-p[ \t]*+|login[ \t]++[^\s]++[ \t]++password[ \t]++)" + _VALUE
)
_HEADER = re.compile(
    rb"authorization" + _QUOTE + _SIGN + rb"(?:\\{0,4}+[\"'])?+"
    rb"(?:(?:bearer|basic|token|digest|apikey|negotiate|bot)[ \t]++)?+(?P<bare>[^\s\"',]++)"
)
_COOKIE = re.compile(rb"\bcookie" + _QUOTE + rb"[ \t]*+:[ \t]*+(?P<bare>[^\n]++)")
_BEARER = re.compile(rb"\b(?:bearer|basic)[ \t]++(?P<bare>[a-z0-9._~+/=-]{8,}+)")
# A token in a training log is mostly a piece of text: only what looks drawn by lot is one here.
_TOKEN = re.compile(rb"token" + _QUOTE + _SIGN + _QUOTE + rb"(?P<bare>[a-z0-9._~+/=-]{16,}+)")

_NO_SECRET = re.compile(
    rb"(?:none|null|nil|undefined|true|false|yes|no|\*+|x{3,}|<[^>]{0,80}>|\$\{?[a-z_0-9]*\}?"
    rb"|\[masked\].*)?[,;)\]}.]*",
    re.DOTALL,
)
_NAMES_ONE = re.compile(rb".*?(?:file|path|name|names|ref|type|policy|length|len|count|dir|mount)")

# --- private keys ------------------------------------------------------------------------------
_KEY_BEGINS = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}+-----|PuTTY-User-Key-File")
_KEY_ENDS = b"-----END"
_KEY_LINES = 400
_KEY_TEXT = re.compile(rb"[A-Za-z0-9+/=]{16,}+")
_KEY_REST = re.compile(rb"(?:^|[ \t])([A-Za-z0-9+/]{1,80}+={0,2}+)[ \t\r]*+$")
_CALM_LINES = 4
# A key's inner line whose first line was cut away.
_KEY_LINE = re.compile(rb"^[ \t]*+([A-Za-z0-9+/]{60,76}+={0,2}+)[ \t\r]*+$", re.MULTILINE)


def mask_secrets(text: bytes) -> tuple[bytes, int]:
    """The text with ``[masked]`` for each secret, and how many; lines stay where they are."""
    spans = sorted(_spans(text))
    if not spans:
        return text, 0
    parts: list[bytes] = []
    count, end = 0, 0
    for start, stop in spans:
        if start < end:
            # Two rules know it: what both cover goes.
            end = max(end, stop)
            continue
        parts += (text[end:start], MASK)
        count, end = count + 1, stop
    parts.append(text[end:])
    return b"".join(parts), count


def mask_words(text: str) -> str:
    """The same for one short text, such as a note."""
    return mask_secrets(text.encode("utf-8", "replace"))[0].decode()


def _spans(text: bytes) -> Iterator[_Span]:
    for match in _FORMS.finditer(text):
        yield match.span()
    for match in _WEBHOOKS.finditer(text):
        yield match.span(1)
    for match in _URL_USER.finditer(text):
        yield from _user_spans(text, *match.span(1))
    yield from _key_spans(text)
    lower = text.lower()
    for match in _SAID.finditer(lower):
        if match["suffix"] and _NAMES_ONE.fullmatch(match["suffix"]):
            continue
        if match["word"] == b"pwd" and (match["bare"] or b"").startswith(b"/"):
            continue  # the shell's working directory
        yield from _value_span(match)
    for rule in (_FLAG, _LOGIN, _HEADER, _COOKIE):
        for match in rule.finditer(lower):
            yield from _value_span(match)
    for match in _BEARER.finditer(lower):
        if len(match["bare"]) >= 20 or _has_digit(match["bare"]):
            yield from _value_span(match)
    for match in _TOKEN.finditer(lower):
        if _has_digit(match["bare"]) and not match["bare"].isdigit():
            yield from _value_span(match)


def _value_span(match: re.Match[bytes]) -> Iterator[_Span]:
    groups = match.groupdict()
    name = next(name for name in ("double", "single", "bare") if groups.get(name) is not None)
    if not _NO_SECRET.fullmatch(match[name]):
        yield match.span(name)


def _has_digit(text: bytes) -> bool:
    return any(48 <= byte <= 57 for byte in text)


def _user_spans(text: bytes, start: int, stop: int) -> Iterator[_Span]:
    """user:password@ → the password; a user alone is one only when it is long."""
    user = text[start : stop - 1]
    colon = user.find(b":")
    if colon >= 0:
        if user[colon + 1 :] not in (b"", MASK):
            yield start + colon + 1, stop - 1
    elif len(user) >= 20:
        yield start, stop - 1


def _key_spans(text: bytes) -> Iterator[_Span]:
    for match in _KEY_LINE.finditer(text):
        yield match.span(1)
    if b"PRIVATE KEY" not in text and b"PuTTY-User-Key-File" not in text:
        return
    position = 0
    while begin := _KEY_BEGINS.search(text, position):
        position = begin.end()
        if b"PRIVATE KEY" not in begin[0] and not begin[0].startswith(b"PuTTY"):
            continue
        # Line by line, and each line once: a beginning without an end must not cost the whole log.
        calm = 0
        for _ in range(_KEY_LINES):
            line_end = text.find(b"\n", position)
            line_end = len(text) if line_end < 0 else line_end
            ends = text.find(_KEY_ENDS, position, line_end)
            stop = line_end if ends < 0 else ends
            if position == begin.end() and stop > position:
                yield position, stop  # all on one line, its line ends written as \\n
            else:
                spans = [match.span() for match in _KEY_TEXT.finditer(text[position:stop])]
                calm = 0 if spans else calm + 1
                spans += [match.span(1) for match in _KEY_REST.finditer(text[position:stop])]
                yield from ((position + start, position + end) for start, end in spans)
            position = stop if ends >= 0 else min(line_end + 1, len(text))
            if ends >= 0 or position == len(text) or calm > _CALM_LINES:
                break
