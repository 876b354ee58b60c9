"""``JsonLinesAnswer``: NDJSON in, NDJSON out, line by line in order, however long the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contract.errors import PresageError
from services.web.access_log import Exchange
from services.web.body import read_json_lines
from services.web.limits import NDJSON, InFlight
from services.web.problem import problem, reason_of

STREAMS = 16
"""At a time: each may hold some of the largest lines."""
_QUEUED_BYTES = 8 << 20

Line = tuple[int, bytes]
AnswerLines = Callable[[Sequence[Line]], Awaitable[list[bytes]]]


class _Lines:
    """Lines read ahead, at most _QUEUED_BYTES (or one) of them."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lines: list[Line] = []
        self._size_bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self.error: BaseException | None = None

    async def read(self) -> None:
        try:
            async for number, line in read_json_lines(self._request):
                async with self._changed:
                    await self._changed.wait_for(lambda: self._size_bytes < _QUEUED_BYTES)
                    self._lines.append((number, line))
                    self._size_bytes += len(line)
                    self._changed.notify_all()
        except (PresageError, ClientDisconnect) as error:
            self.error = error
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()

    async def take(self, most: int) -> list[Line]:
        """What is there, at least one; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lines or self._ended)
            taken, self._lines = self._lines[:most], self._lines[most:]
            self._size_bytes -= sum(len(line) for _, line in taken)
            self._changed.notify_all()
        return taken


class JsonLinesAnswer(Response):
    """Answers while it reads. An error after the first answer is the stream's last line.

    answer: lines with their numbers -> one line of JSON each. most: lines it takes at once.
    """

    def __init__(
        self, request: Request, answer: AnswerLines, *, most: int, streams: InFlight
    ) -> None:
        super().__init__(media_type=NDJSON)
        self._request = request
        self._answer = answer
        self._most = most
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.enter()
        lines = _Lines(self._request)
        reading = asyncio.create_task(lines.read())
        try:
            await self._write(scope, lines, send)
        finally:
            self._streams.leave()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _write(self, scope: Scope, lines: _Lines, send: Send) -> None:
        """Raises PresageError before the first answer, so that it has a status of its own."""
        started = False
        exchange: Exchange = scope["presage"]
        error: BaseException | None = None
        while taken := await lines.take(self._most):
            try:
                answers = await self._answer(taken)
            except PresageError as raised:
                error = raised
                break
            if not started:
                started = True
                await send(self._start())
            body = b"\n".join(answers) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        error = error or lines.error
        if error is not None and not started:
            raise error
        if not started:
            await send(self._start())
        body = b""
        if isinstance(error, PresageError):
            exchange.reason = reason_of(error)
            told = problem(error, request_id=exchange.request_id, chinese=exchange.chinese)
            body = orjson.dumps({"error": told}) + b"\n"
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _start(self) -> dict[str, Any]:
        headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def answer_each(
    lines: Sequence[Line],
    read: Callable[[int, bytes], Any],
    ask: Callable[[list[Any]], Awaitable[list[dict[str, Any]]]],
    dump: Callable[[Any], bytes],
    *,
    chinese: bool,
) -> list[bytes]:
    """One line of JSON a line: a line that ``read`` refuses (PresageError) does not lose the
    others, which ``ask`` answers together.
    """
    good: list[tuple[int, Any]] = []
    told: dict[int, dict[str, Any]] = {}
    for number, raw in lines:
        try:
            good.append((number, read(number, raw)))
        except PresageError as error:
            told[number] = {"error": problem(error, chinese=chinese)}
    if good:
        answers = await ask([value for _, value in good])
        told |= {number: answer for (number, _), answer in zip(good, answers, strict=True)}
    return [dump({"line": number, **told[number]}) for number, _ in lines]
