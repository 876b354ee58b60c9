"""The settings of notifications: one TOML file with a ``[[channel]]`` for each place to tell."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from contract.errors import ConfigError
from services.notify.causes import CauseSettings, CauseTable
from services.notify.notification import Audience, Language, Severity
from services.settings_file import load_settings_file

EXAMPLE = "deploy/notify/notify.toml"
RECIPIENT = "{user}"
"""In a channel's URL: the job's own user."""
Form = Literal["text", "markdown", "html"]


class _Settings(BaseModel):
    # A value that is refused may be a secret: errors must not show it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ChannelSettings(_Settings):
    """One place to tell.

    url: as apprise writes it (``dingtalk://…``, ``mailto://…``); ``{user}`` in it is the job's user
    url_file: holds the URL, where it must not stand in the settings
    causes: labels or alert names, ``*`` and ``?`` allowed; empty: all
    minimum_severity: by default ``warning`` for the SRE, ``info`` for users
    group_minutes: further failures of one node and cause (SRE) or one user and cause (user)
        within it are told as one
    repeat_after_hours: the same job and cause is not told again before
    per_minute, burst: what the channel takes; more is told in one summary
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    url: SecretStr | None = None
    url_file: Path | None = None
    audience: Audience
    language: Literal["zh", "en", "both"] = "both"
    format: Literal["auto", "text", "markdown", "html"] = "auto"
    causes: tuple[str, ...] = ()
    minimum_severity: Severity | None = None
    group_minutes: float = Field(default=10.0, ge=0, le=24 * 60)
    repeat_after_hours: float = Field(default=24.0, ge=0, le=24 * 30)
    per_minute: float = Field(default=10.0, gt=0, le=6000)
    burst: int = Field(default=5, ge=1, le=1000)

    @model_validator(mode="after")
    def _has_one_url(self) -> ChannelSettings:
        if (self.url is None) == (self.url_file is None):
            raise ValueError(f"channel {self.name}: expected either url or url_file")
        return self

    @property
    def languages(self) -> tuple[Language, ...]:
        return ("zh", "en") if self.language == "both" else (self.language,)

    @property
    def lowest(self) -> Severity:
        return self.minimum_severity or ("warning" if self.audience == "sre" else "info")

    def wants(self, cause: str) -> bool:
        return not self.causes or any(fnmatchcase(cause, pattern) for pattern in self.causes)

    def read_url(self) -> str:
        """The secret. Raises ConfigError, without it."""
        if self.url is not None:
            url = self.url.get_secret_value()
        else:
            assert self.url_file is not None
            try:
                url = self.url_file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    "the channel's URL cannot be read",
                    where=f"channel {self.name}, url_file {self.url_file}",
                    got=getattr(error, "strerror", None) or "no text",
                ) from error
        url = url.strip()
        if "format" in parse_qs(urlsplit(url).query):
            raise ConfigError(
                "the channel's URL sets a format of its own",
                where=f"channel {self.name}",
                expected='format = "text", "markdown" or "html" beside the URL',
            )
        return url


class AlertmanagerSettings(_Settings):
    """hold_minutes: an alert ends so long after the last failure that raised it."""

    url: SecretStr
    hold_minutes: float = Field(default=60.0, gt=0)


class NotifyConfig(_Settings):
    """outbox: a SQLite file; what is in it is told after a crash, too.

    outbox_limit: waiting notifications of one channel; beyond it new ones are refused
    give_up_after_hours: what could not be told for so long is kept as failed
    templates: a folder whose templates stand in place of those of the same name in the package
    """

    outbox: Path = Path("build/notify/outbox.sqlite")
    outbox_limit: int = Field(default=20_000, ge=10)
    give_up_after_hours: float = Field(default=24.0, gt=0)
    templates: Path | None = None
    alertmanager: AlertmanagerSettings | None = None
    cause: dict[str, CauseSettings] = Field(default_factory=dict)
    channel: tuple[ChannelSettings, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> NotifyConfig:
        names = [channel.name for channel in self.channel]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"channel: expected each name once, got twice: {', '.join(twice)}")
        if ALERTMANAGER in names:
            raise ValueError(f"channel: the name {ALERTMANAGER} is taken by [alertmanager]")
        if self.templates is not None and not self.templates.is_dir():
            raise ValueError("templates: expected a folder")
        return self

    def table(self) -> CauseTable:
        return CauseTable(self.cause)


ALERTMANAGER = "alertmanager"


def load_notify_config(path: Path, **over: Any) -> NotifyConfig:
    """Raises ConfigError: which setting, expected, got; never a URL."""
    config = load_settings_file(path, NotifyConfig, example=EXAMPLE)
    return config.model_copy(update=over) if over else config
