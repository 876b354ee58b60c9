"""``HttpLoad``: callers that each send the next request as soon as the last is answered.

One event loop with hand-made HTTP: a caller costs a twentieth of a millisecond, so that on a
machine that also runs what is measured, it is mostly the measured that takes the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import cast

import uvloop

from contract.errors import ServerAnswerError

_TIMEOUT_SECONDS = 120.0


def http_request(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class HttpLoad:
    """``concurrency`` keep-alive connections to one port of this machine."""

    def __init__(self, port: int, requests: Iterator[bytes], concurrency: int) -> None:
        self._port = port
        self._requests = requests
        self._concurrency = concurrency

    def run(self, seconds: float) -> tuple[list[float], float]:
        """Latencies in seconds of every request begun in time, and requests per second.

        Raises ServerAnswerError: anything but 200.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._run(seconds))

    async def _run(self, seconds: float) -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        callers = []
        for _ in range(self._concurrency):
            _, caller = await loop.create_connection(
                lambda: _Caller(self._requests.__next__), "127.0.0.1", self._port
            )
            callers.append(caller)
        started = time.perf_counter()
        for caller in callers:
            caller.start(started + seconds)
        try:
            async with asyncio.timeout(seconds + _TIMEOUT_SECONDS):
                await asyncio.gather(*(caller.done for caller in callers))
        finally:
            for caller in callers:
                caller.close()
        taken = [latency for caller in callers for latency in caller.latencies]
        return taken, len(taken) / (time.perf_counter() - started)


class _Caller(asyncio.Protocol):
    def __init__(self, next_request: Callable[[], bytes]) -> None:
        self._next = next_request
        self._transport: asyncio.Transport | None = None
        self._read = bytearray()
        self._sent = self._until = 0.0
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)

    def start(self, until: float) -> None:
        """Ask until that moment of ``perf_counter``, once at least."""
        self._until = until
        self._ask()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._read[:end]).lower()
        _, _, length = head.partition(b"content-length:")
        if len(self._read) < end + 4 + int(length.split(b"\r\n")[0]):
            return
        now = time.perf_counter()
        if b" 200 " not in head[:16]:
            self._fail(bytes(self._read[:600]).decode("utf-8", "replace"))
            return
        self._read.clear()
        self.latencies.append(now - self._sent)
        if now < self._until:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was closed: {error}")

    def _ask(self) -> None:
        assert self._transport is not None
        request = self._next()
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _fail(self, why: str) -> None:
        if not self.done.done():
            error = ServerAnswerError("a measured request failed", expected="200", got=why)
            self.done.set_exception(error)
