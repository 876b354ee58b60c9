"""What a request may cost before it is refused: bytes, seconds, requests at a time, a rate."""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import Message, Receive

from contract.errors import RequestRefusedError
from services.web.settings import WebSettings

LARGEST_BATCH = 10_000
"""Rows of one request."""
NDJSON = "application/x-ndjson"
_UNPACK_AT_ONCE = 1 << 18
_REMEMBERED_BUCKETS = 10_000


def check_batch(count: int, largest: int = LARGEST_BATCH) -> None:
    """Raises RequestRefusedError (413)."""
    if count > largest:
        raise RequestRefusedError(
            "too many rows in one request",
            status=413,
            reason="batch_size",
            expected=f"at most {largest:,}",
            got=f"{count:,}",
            next_command=f"send several requests, or a stream as {NDJSON}",
        )


def check_headers(
    headers: Sequence[tuple[bytes, bytes]], path_bytes: int, most: WebSettings
) -> None:
    """Raises RequestRefusedError (431)."""
    size = path_bytes + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > most.largest_header_bytes or len(headers) > most.largest_header_count:
        raise RequestRefusedError(
            "the request's line and headers are too large",
            status=431,
            reason="header_size",
            expected=f"{most.largest_header_bytes} bytes in {most.largest_header_count} headers",
            got=f"{size} bytes in {len(headers)}",
        )


class Held:
    """Bytes of bodies that are in memory, of all requests together."""

    def __init__(self, largest_bytes: int) -> None:
        self.largest_bytes = largest_bytes
        self.size_bytes = 0


class BodyReader:
    """An ASGI ``receive`` that unpacks gzip and stops what is too large or too slow.

    A stream (``application/x-ndjson``) is not held, so it may be long, and may pause.

    arrived: nothing more comes from the client. complete: all was handed on.

    Raises (from ``receive``): RequestRefusedError 400, 408, 413 or 503.
    """

    def __init__(
        self,
        receive: Receive,
        settings: WebSettings,
        held: Held,
        *,
        gzipped: bool,
        stream: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._held = held
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._unpacker = zlib.decompressobj(31) if gzipped else None
        self._packed = b""
        self._largest_bytes = (
            settings.largest_stream_bytes if stream else settings.largest_body_bytes
        )
        self._unpacked_bytes = 0
        self._held_bytes = 0
        self.received_bytes = 0
        self.arrived = False
        self.complete = False

    def release(self) -> None:
        """The body is no longer held."""
        self._held.size_bytes -= self._held_bytes
        self._held_bytes = 0

    async def __call__(self) -> Message:
        if self.complete:
            return await self._receive()
        if self._unpacker is None:
            message = await self._next()
            if message["type"] == "http.request":
                self._count(len(message.get("body", b"")))
                self.complete = self.arrived
            return message
        return await self._unpacked(self._unpacker)

    async def drain(self, seconds: float, largest_bytes: int) -> None:
        """Swallow what still comes, for a while: a refusal sent to a client that is still writing
        would be lost in a reset.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.arrived and self.received_bytes < largest_bytes:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return
                    self.received_bytes += len(message.get("body", b""))
                    self.arrived = not message.get("more_body", False)
        except TimeoutError:
            return

    async def _next(self) -> Message:
        settings = self._settings
        if self._stream:
            left = settings.stream_idle_seconds
        else:
            allowed = settings.body_grace_seconds
            allowed += self.received_bytes / settings.body_bytes_per_second
            left = self._started + allowed - self._clock()
        try:
            async with asyncio.timeout(max(0.001, left)):
                message = await self._receive()
        except TimeoutError:
            raise RequestRefusedError(
                "the body comes too slowly",
                status=408,
                reason="slow_body",
                expected=f"{settings.body_bytes_per_second} bytes a second",
                got=f"{self.received_bytes} bytes in {self._clock() - self._started:.0f} s",
            ) from None
        self.received_bytes += len(message.get("body", b""))
        self.arrived = not message.get("more_body", False)
        if self.received_bytes > self._largest_bytes:
            raise body_too_large(self._largest_bytes)
        return message

    async def _unpacked(self, unpacker: Any) -> Message:
        """The next piece of a gzip body, at most _UNPACK_AT_ONCE bytes of it."""
        while True:
            if not self._packed and not self.arrived:
                message = await self._next()
                if message["type"] != "http.request":
                    return message
                self._packed = message.get("body", b"")
            try:
                part = unpacker.decompress(self._packed, _UNPACK_AT_ONCE)
            except zlib.error as error:
                raise _bad_gzip(str(error)) from error
            self._packed = unpacker.unconsumed_tail
            self._count(len(part))
            if unpacker.eof:
                # gzip members may follow one another.
                rest = unpacker.unused_data
                while not rest and not self.arrived:
                    rest = (await self._next()).get("body", b"")
                self.complete = not rest
                if rest:
                    self._packed = rest
                    self._unpacker = unpacker = zlib.decompressobj(31)
            elif not part and not self._packed and self.arrived:
                raise _bad_gzip("it ends too early")
            if part or self.complete:
                return {"type": "http.request", "body": part, "more_body": not self.complete}

    def _count(self, size_bytes: int) -> None:
        self._unpacked_bytes += size_bytes
        if self._unpacked_bytes > self._largest_bytes:
            raise body_too_large(self._largest_bytes)
        if self._stream:
            # What was read of a stream is gone.
            return
        self._held_bytes += size_bytes
        self._held.size_bytes += size_bytes
        if self._held.size_bytes > self._held.largest_bytes:
            raise RequestRefusedError(
                "too many large requests at once",
                status=503,
                reason="in_flight",
                retry_after_seconds=2,
            )


def body_too_large(largest_bytes: int) -> RequestRefusedError:
    return RequestRefusedError(
        "the body is too large",
        status=413,
        reason="body_size",
        expected=f"at most {largest_bytes} bytes, unpacked",
        next_command=f"send several requests, or a stream as {NDJSON}",
    )


def _bad_gzip(why: str) -> RequestRefusedError:
    return RequestRefusedError("the gzip body is broken", status=400, reason="body", got=why)


class InFlight:
    """Requests being answered. No queue: beyond the limit one is told to come again."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    def enter(self) -> None:
        """Raises RequestRefusedError (503)."""
        if self.count >= self.limit:
            raise RequestRefusedError(
                "too many requests at a time",
                status=503,
                reason="in_flight",
                expected=f"at most {self.limit}",
                retry_after_seconds=1,
            )
        self.count += 1

    def leave(self) -> None:
        self.count -= 1


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """One token bucket a caller: ``burst`` at once, ``rate_per_second`` in the long run."""

    def __init__(self, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, rate_per_second: float) -> None:
        """Raises RequestRefusedError (429) with the time until the next one is free."""
        if rate_per_second <= 0 or math.isinf(rate_per_second):
            return
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(float(self._burst), now)
            if len(self._buckets) > _REMEMBERED_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            filled = bucket.tokens + (now - bucket.filled_at) * rate_per_second
            bucket.tokens = min(float(self._burst), filled)
            bucket.filled_at = now
        if bucket.tokens < 1:
            raise RequestRefusedError(
                "too many requests with this token",
                status=429,
                reason="rate",
                expected=f"{rate_per_second:g} a second, {self._burst} at once",
                retry_after_seconds=(1 - bucket.tokens) / rate_per_second,
            )
        bucket.tokens -= 1
