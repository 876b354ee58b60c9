"""``CauseTable``: names of causes, and how severe each is to whom."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from services.notify.notification import Audience, Language, Notification, Severity

UNKNOWN = "unknown"


class CauseSettings(BaseModel):
    """Of one cause; what a settings file leaves out stays as the table of defaults has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    en: str | None = None
    zh: str | None = None
    user: Severity | None = None
    sre: Severity | None = None


@cache
def default_causes() -> Mapping[str, CauseSettings]:
    text = files("services.notify").joinpath("causes.toml").read_text("utf-8")
    return {label: CauseSettings.model_validate(row) for label, row in tomllib.loads(text).items()}


class CauseTable:
    """The defaults with a settings file's rows over them.

    A cause that no row names, such as a label of a newer model, is the user's affair: ``warning``
    to the user, ``info`` to the SRE.
    """

    def __init__(self, over: Mapping[str, CauseSettings] | None = None) -> None:
        self._rows = dict(default_causes())
        for label, row in (over or {}).items():
            below = self._rows.get(label, CauseSettings())
            self._rows[label] = below.model_copy(update=row.model_dump(exclude_none=True))

    def __contains__(self, cause: object) -> bool:
        return cause in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def name(self, cause: str, language: Language) -> str:
        row = self._rows.get(cause)
        name = None if row is None else (row.zh if language == "zh" else row.en)
        return name or cause

    def severity(self, notification: Notification, audience: Audience) -> Severity:
        """The notification's own word first, then the table's."""
        if (given := notification.severities.get(audience)) is not None:
            return given
        row = self._rows.get(notification.cause, CauseSettings())
        if audience == "user":
            return row.user or "warning"
        return row.sre or "info"
