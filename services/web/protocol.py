"""``GuardedProtocol``: uvicorn's HTTP protocol, guarded against slow and large headers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from contract.errors import RequestRefusedError
from services.web.problem import render_problem
from services.web.settings import WebSettings

_LINES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class GuardedProtocol(HttpToolsProtocol):
    """A connection whose next request's headers must be whole within ``header_seconds`` of their
    first byte (of the connection's begin, for the first), and not too large.
    """

    settings: WebSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_headers = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            transport.close()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            if self._deadline is None:
                self._arm()
            self._header_bytes += len(data)
        super().data_received(data)
        # What came along of the body is counted too while it is not known where headers end.
        if self._in_headers and self._header_bytes > self.settings.largest_header_bytes:
            self._refuse(431, "header_size", "the request's line and headers are too large")

    def on_headers_complete(self) -> None:
        self._disarm()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers = True
        self._header_bytes = 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "body", "the request is no HTTP/1.1")

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.settings.header_seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._refuse(408, "slow_headers", "the headers come too slowly")

    def _refuse(self, status: int, reason: str, what: str) -> None:
        self._disarm()
        if self.transport is None or self.transport.is_closing():
            return
        error = RequestRefusedError(what, status=status, reason=reason)
        _, headers, body = render_problem(error)
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (status, _LINES[status])
            + lines
            + b"connection: close\r\n\r\n"
            + body
        )
        self.transport.close()


def guarded(settings: WebSettings) -> type[GuardedProtocol]:
    """The protocol with these limits, as uvicorn wants it: a class."""
    return type("Guarded", (GuardedProtocol,), {"settings": settings})
