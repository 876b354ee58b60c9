"""``Answer``: what is sent, with its headers, whole or as a problem."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.types import Message, Send

from contract.errors import PresageError
from services.web.access_log import Exchange
from services.web.limits import BodyReader
from services.web.problem import reason_of, render_problem

_SEND_SECONDS = 60.0
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 << 20
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_CLOSED_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NOT_STORED = (b"cache-control", b"no-store")


class SlowReaderError(Exception):
    """Whoever asked does not read the answer."""


class Answer:
    """An ASGI ``send`` that adds headers, counts, and closes a connection without losing a
    refusal to a client that is still writing.

    extra: headers for this request's answer. closing: the connection is not kept.
    """

    def __init__(
        self,
        exchange: Exchange,
        reader: BodyReader,
        send: Send,
        *,
        extra: Sequence[tuple[bytes, bytes]] = (),
        closing: bool = False,
    ) -> None:
        self._exchange = exchange
        self._reader = reader
        self._send = send
        self._extra = extra
        self._closing = closing
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._exchange.status = message["status"]
            message = {**message, "headers": self._headers(message.get("headers", []))}
            await self._send(message)
            return
        body = message.get("body", b"")
        self._exchange.sent_bytes += len(body)
        last = not message.get("more_body", False)
        if last and not self._reader.arrived:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._reader.drain(_LINGER_SECONDS, _LINGER_BYTES)
            await self._send({"type": "http.response.body", "body": b""})
            return
        if last:
            await self._send(message)
            return
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise SlowReaderError from None

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if status != 204:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def refuse(
        self, error: PresageError, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        if self.started:
            return
        self._exchange.reason = reason_of(error)
        status, own, body = render_problem(
            error, request_id=self._exchange.request_id, chinese=self._exchange.chinese
        )
        await self(
            {"type": "http.response.start", "status": status, "headers": [*own, *(headers or [])]}
        )
        await self({"type": "http.response.body", "body": body})

    def _headers(self, own: Any) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = list(own)
        names = {name for name, _ in headers}
        headers.append((b"x-request-id", self._exchange.request_id.encode()))
        headers += _SECURITY
        if b"content-security-policy" not in names:
            headers.append(_CLOSED_POLICY)
        if b"cache-control" not in names:
            headers.append(_NOT_STORED)
        headers += self._extra
        if not self._reader.arrived or self._closing:
            headers.append((b"connection", b"close"))
        return headers
