"""Errors of tritonclient and the transports below it, translated in this one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from contract.errors import (
    DeadlineExceededError,
    InputError,
    OverloadedError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
    UnknownModelError,
)

_OVERLOADED = re.compile(r"exceeds maximum queue size|queue is full", re.IGNORECASE)
_UNKNOWN = re.compile(r"request for unknown model|unknown model|model .*is not found", re.I)
_NOT_READY = re.compile(
    r"is not ready|server not ready|has no available versions|server exiting|is not healthy",
    re.IGNORECASE,
)


def translate(error: BaseException, *, model: str, url: str) -> PresageError:
    """The contract's error for whatever a transport raised."""
    if isinstance(error, PresageError):
        return error
    status, message = _status_and_message(error)
    if _OVERLOADED.search(message):
        return OverloadedError(
            f"{model}: the server's queue is full", where=url, next_command="send less at once"
        )
    if _UNKNOWN.search(message) and not _NOT_READY.search(message):
        return UnknownModelError(
            f"the server has no model {model!r}",
            where=url,
            got=message,
            next_command="list what it serves: python -m clients health",
        )
    # Nobody here cancels a call: a server that ends does, with what it has not taken up yet.
    gone = status in {"UNAVAILABLE", "CANCELLED", "503"}
    if _NOT_READY.search(message) or gone or _is_connection(error):
        return ServerUnavailableError(
            f"{model}: the server does not answer",
            where=url,
            got=message,
            next_command="start it: python -m embedded_triton up --detach",
        )
    if status in {"DEADLINE_EXCEEDED", "499", "504"} or isinstance(error, TimeoutError):
        return DeadlineExceededError(f"{model}: no answer in time", where=url, got=message)
    if status in {"INVALID_ARGUMENT", "400"}:
        return InputError(f"{model}: the server refuses the input", where=url, got=message)
    return ServerAnswerError(f"{model}: the server failed", where=url, got=message)


def explain_unknown(
    error: UnknownModelError, model: str, index: Sequence[Mapping[str, Any]]
) -> PresageError:
    """The error itself, or that the model is in the repository but not loaded (yet): a server
    that starts answers before its models do.
    """
    if all(entry.get("name") != model for entry in index):
        return error
    return ServerUnavailableError(
        f"{model}: in the server's repository, but not loaded",
        where=error.where,
        next_command="wait until it is, or see why not: python -m clients health",
    )


def _status_and_message(error: BaseException) -> tuple[str, str]:
    """Triton's status without its prefix ("UNAVAILABLE", "400"), and one line of text."""
    status = ""
    read = getattr(error, "status", None)
    if callable(read):
        status = str(read() or "").removeprefix("StatusCode.")
    text = getattr(error, "message", None)
    message = str(text() if callable(text) else error) or type(error).__name__
    return status, " ".join(message.split())[:500]


def _is_connection(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, OSError)) and not isinstance(error, TimeoutError):
        return True
    # aiohttp's and geventhttpclient's own classes, without importing either.
    return any(
        cls.__name__ in {"ClientConnectionError", "ClientConnectorError", "HTTPConnectionClosed"}
        for cls in type(error).__mro__
    )
