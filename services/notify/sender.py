"""``AppriseSender``: one message to one channel, by apprise; the URL's secrets stay inside."""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from contract.errors import ConfigError, ServerUnavailableError
from services.notify.config import RECIPIENT, ChannelSettings, Form
from services.notify.refusals import see_refusals
from services.notify.rendering import Message

_RECIPIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORTEST_SECRET = 3
_HARMLESS = {"http", "https", "localhost", "true", "false", "yes", "smtp", "post", "get"}


class Sender(Protocol):
    """``send`` returns once the service took the message."""

    def send(self, message: Message, recipient: str) -> None:
        """Raises PresageError: it did not, and why."""

    def close(self) -> None: ...


def recipient_of(user: str) -> str | None:
    """The name by which a user is put into a URL; None where it is not safe to do so."""
    return user if _RECIPIENT_NAME.fullmatch(user) else None


class Redaction:
    """Takes the pieces of a URL out of a text: keys, passwords, names, in all spellings."""

    def __init__(self, url: str) -> None:
        rest = url.split("://", 1)[-1]
        pieces = {piece for piece in re.split(r"[/:@?&=,#\s]+", rest) if piece}
        pieces |= {unquote(piece) for piece in pieces} | {quote(p, safe="") for p in pieces}
        pieces.add(rest)
        self._pieces = sorted(
            (p for p in pieces if len(p) >= _SHORTEST_SECRET and p.lower() not in _HARMLESS),
            key=len,
            reverse=True,
        )

    def __call__(self, text: str) -> str:
        for piece in self._pieces:
            text = text.replace(piece, "****")
        return text


_redactions: weakref.WeakSet[Redaction] = weakref.WeakSet()


class _Redacting(logging.Filter):
    """On apprise's logger: whoever listens to it hears no channel's secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        for redact in list(_redactions):
            text = redact(text)
        record.msg, record.args = text, ()
        return True


class _Heard(logging.Handler):
    """apprise tells what is wrong with a URL only by its log: kept, a thread's own, and printed
    nowhere.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        lines = getattr(self._lines, "lines", None)
        if lines is not None:
            lines.append(record.getMessage())

    def start(self) -> None:
        self._lines.lines = []

    def stop(self) -> str:
        lines = getattr(self._lines, "lines", None) or []
        self._lines.lines = None
        return _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    return "; ".join(" ".join(line.split()) for line in lines)[:300]


_heard = _Heard()


def _silence() -> None:
    logger = logging.getLogger("apprise")
    if _heard not in logger.handlers:
        # On debug it prints URLs with their tokens, and on warning a token that is wrong.
        logger.addHandler(_heard)
        logger.addFilter(_Redacting())
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.WARNING)


class AppriseSender:
    """For one thread at a time. apprise is synchronous: never in an event loop.

    form: what the channel is written in; largest_bytes: of a body

    Raises ConfigError: apprise does not know the URL, which the message does not show.
    """

    def __init__(self, settings: ChannelSettings) -> None:
        _silence()
        self._name = settings.name
        self._url = settings.read_url()
        self._redact = Redaction(self._url)
        _redactions.add(self._redact)
        self.is_personal = RECIPIENT in self._url
        see_refusals(urlsplit(self._url).scheme.lower())
        self._service = self._instantiate("user" if self.is_personal else "")
        see_refusals(str(self._service.url(privacy=True)).split("://", 1)[0])
        self.kind = str(self._service.service_name)
        self.form = self._form(settings.format)
        self.largest_bytes = int(self._service.body_maxlen)

    def send(self, message: Message, recipient: str) -> None:
        """Raises ServerUnavailableError: the service did not take it; why, without secrets."""
        import apprise

        service = self._instantiate(recipient) if self.is_personal else self._service
        caller = apprise.Apprise()
        caller.add(service)
        kinds = {"info": "info", "warning": "warning", "critical": "failure"}
        kind = "success" if message.resolved else kinds.get(message.severity, "info")
        try:
            taken = caller.notify(
                body=message.body, title=message.title, notify_type=kind, body_format=message.form
            )
            reason = _joined(line.message for line in taken.logs() if line.level != "INFO")
        except Exception as error:  # whatever one of a hundred plugins may raise
            taken, reason = None, repr(error)
        if not taken:
            raise ServerUnavailableError(
                "a channel did not take a notification",
                where=f"channel {self._name} ({self.kind})",
                got=self._redact(reason or "no reason given"),
            )

    def close(self) -> None:
        """Nothing is held open between messages."""

    def _instantiate(self, recipient: str) -> Any:
        import apprise

        _heard.start()
        reason = ""
        service = None
        try:
            service = apprise.Apprise.instantiate(
                self._url.replace(RECIPIENT, quote(recipient, safe="")),
                asset=apprise.AppriseAsset(
                    app_id="Presage",
                    app_desc="Presage",
                    app_url="",
                    # No pictures fetched from somewhere else.
                    image_url_mask="",
                    image_url_logo="",
                    async_mode=False,
                ),
                suppress_exceptions=True,
            )
        except Exception as error:
            reason = repr(error)
        finally:
            heard = _heard.stop()
        if service is None:
            raise ConfigError(
                "apprise does not know the channel's URL",
                where=f"channel {self._name}",
                expected="one of its forms, such as dingtalk://… or mailto://…",
                got=self._redact(heard or reason) or None,
                next_command="see github.com/caronc/apprise for the forms",
            )
        return service

    def _form(self, wanted: str) -> Form:
        declared = self._service.notify_format
        declared = declared if isinstance(declared, tuple) else (declared,)
        known = [str(getattr(form, "value", form)) for form in declared]
        if wanted != "auto":
            if wanted not in known:
                raise ConfigError(
                    "the channel does not know the format",
                    where=f"channel {self._name} ({self.kind})",
                    expected=" or ".join(known),
                    got=wanted,
                )
            return wanted  # type: ignore[return-value]
        # Mail is read as HTML. Everywhere else lines of a log are most exact as text.
        order: tuple[Form, ...] = ("text", "html", "markdown")
        if known[0] == "html":
            order = ("html", "text", "markdown")
        return next(form for form in order if form in known)
