"""``Notification``: what somebody should know. Its texts come from logs and are trusted nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Language = Literal["zh", "en"]
Audience = Literal["user", "sre"]
Severity = Literal["none", "info", "warning", "critical"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
SEVERITIES: tuple[Severity, ...] = ("none", "info", "warning", "critical")
"""In order; ``none`` is not told."""

MOST_EVIDENCE = 20
_LONGEST = {"name": 253, "line": 1_000, "text": 2_000}


def rank(severity: Severity) -> int:
    return SEVERITIES.index(severity)


def _cut(kind: str) -> BeforeValidator:
    limit = _LONGEST[kind]

    def cut(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # Half of a surrogate pair cannot be stored, nor sent.
        text = value.encode("utf-8", "replace").decode()
        return text if len(text) <= limit else text[: limit - 1] + "…"

    return BeforeValidator(cut)


Name = Annotated[str, _cut("name")]
Line = Annotated[str, _cut("line")]
Text = Annotated[str, _cut("text")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Frozen):
    """One more thing to show; the name by language: ``{"zh": "概率", "en": "probability"}``."""

    name: Mapping[Language, Name]
    value: Line


class Notification(_Frozen):
    """Too long texts are cut, never refused.

    cause: label or alert name; routes, and is summed by together with ``node`` or ``user``
    subject: the job, or what else it concerns
    key: notifications of one key are one; by default subject and cause
    severities: by audience, where the table of causes does not decide
    summary, action: by language
    evidence: lines of a log, the telling ones first
    resolved: it is over
    link: where more is to be read; http(s) or nothing
    created_at: Unix seconds
    """

    cause: Name
    subject: Name
    created_at: float
    kind: Literal["job_failure", "alert", "test"] = "job_failure"
    key: Annotated[str, Field(max_length=1_000)] = ""
    node: Name = ""
    user: Name = ""
    severities: Mapping[Audience, Severity] = Field(default_factory=dict)
    summary: Mapping[Language, Text] = Field(default_factory=dict)
    action: Mapping[Language, Text] = Field(default_factory=dict)
    evidence: Annotated[tuple[Line, ...], BeforeValidator(lambda v: tuple(v)[:MOST_EVIDENCE])] = ()
    facts: tuple[Fact, ...] = ()
    resolved: bool = False
    link: Annotated[str, Field(pattern=r"^(https?://[^\s<>\"'()\[\]`]+)?$", max_length=2_000)] = ""

    @property
    def identity(self) -> str:
        return self.key or f"{self.subject}\n{self.cause}"

    def pack(self) -> str:
        return self.model_dump_json()

    @classmethod
    def unpack(cls, packed: str) -> Notification:
        return cls.model_validate_json(packed)
