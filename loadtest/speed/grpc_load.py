"""``GrpcLoad``: as ``HttpLoad``, over gRPC: callers that each send the next as soon as answered.

A Python gRPC client costs more than the server it measures. This one writes HTTP/2 frames around
requests that are serialised beforehand, all callers in one event loop, and reads no more of an
answer than its status: ``hpack`` decodes each distinct block of headers once, as the server is told
to keep no table of them.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import uvloop
from hpack import Decoder, Encoder

from contract.errors import ServerAnswerError

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"

_TIMEOUT_SECONDS = 120.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535
_FRAME_BYTES = 16_384
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _ACK, _PADDED, _PRIORITY = 0x1, 0x4, 0x1, 0x8, 0x20
_HEADER_TABLE_SIZE, _INITIAL_WINDOW = 0x1, 0x4
# Window given back to the server before it runs out.
_REFILL_BYTES = 1 << 20


class GrpcLoad:
    """``concurrency`` callers over ``connections`` of one address; each has one request open.

    ``requests``: serialised messages of ``method``. ``cpu_seconds``, ``answered``: what this
    process spent, and on how many, since it was made: the callers' own cost.
    """

    def __init__(
        self,
        address: str,
        requests: Iterator[bytes],
        concurrency: int,
        *,
        method: str = INFER,
        connections: int = 4,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._requests = requests
        self._method = method
        self._shares = [
            len(range(first, concurrency, connections))
            for first in range(min(connections, concurrency))
        ]
        self.cpu_seconds = 0.0
        self.answered = 0

    def run(self, seconds: float) -> tuple[list[float], float]:
        """Latencies in seconds of every request begun in time, and requests per second.

        Raises ServerAnswerError: anything but OK.
        """
        before = time.process_time()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            taken, rate = runner.run(self._run(seconds))
        self.cpu_seconds += time.process_time() - before
        self.answered += len(taken)
        return taken, rate

    async def _run(self, seconds: float) -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        connections = []
        for _ in self._shares:
            _, connection = await loop.create_connection(
                lambda: _Connection(
                    f"{self._host}:{self._port}", self._method, self._requests.__next__
                ),
                self._host,
                self._port,
            )
            connections.append(connection)
        started = time.perf_counter()
        for connection, share in zip(connections, self._shares, strict=True):
            connection.start(share, started + seconds)
        try:
            async with asyncio.timeout(seconds + _TIMEOUT_SECONDS):
                await asyncio.gather(*(connection.done for connection in connections))
        finally:
            for connection in connections:
                connection.close()
        taken = [latency for connection in connections for latency in connection.latencies]
        return taken, len(taken) / (time.perf_counter() - started)


class _Connection(asyncio.Protocol):
    def __init__(self, authority: str, method: str, next_request: Callable[[], bytes]) -> None:
        self._next = next_request
        self._transport: asyncio.Transport | None = None
        block = _request_head(authority, method)
        self._opening = _frame(_HEADERS, _END_HEADERS, 0, block)[:5]
        self._fields = block
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self._failure_of: dict[bytes, str | None] = {}
        self._read = bytearray()
        self._until = 0.0
        self._ids = itertools.count(1, 2)
        self._sent_at: dict[int, float] = {}
        self._unsent: dict[int, deque[memoryview]] = {}
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._windows: dict[int, int] = {}
        self._unacknowledged = 0
        self._block = b""
        self._ends_stream = False
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW, _LARGEST_WINDOW)
        room = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, room)
        )

    def start(self, callers: int, until: float) -> None:
        """Ask until that moment of ``perf_counter``, each caller once at least."""
        self._until = until
        for _ in range(callers):
            self._ask()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was closed: {error}")

    def data_received(self, data: bytes) -> None:
        read = self._read
        read += data
        place, end = 0, len(read)
        while end - place >= 9:
            size = int.from_bytes(read[place : place + 3], "big")
            if end - place - 9 < size:
                break
            kind, flags = read[place + 3], read[place + 4]
            stream = int.from_bytes(read[place + 5 : place + 9], "big") & _LARGEST_WINDOW
            if kind == _DATA:
                self._unacknowledged += size
            else:
                self._take(kind, flags, stream, bytes(read[place + 9 : place + 9 + size]))
            place += 9 + size
        del read[:place]
        if self._unacknowledged > _REFILL_BYTES and self._transport is not None:
            self._transport.write(_frame(_WINDOW, 0, 0, struct.pack(">I", self._unacknowledged)))
            self._unacknowledged = 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind in (_HEADERS, _CONTINUATION):
            if kind == _HEADERS:
                self._block = _unpadded(payload, flags)
                self._ends_stream = bool(flags & _END_STREAM)
            else:
                self._block += payload
            if flags & _END_HEADERS:
                self._headers(stream, self._block)
        elif kind == _WINDOW:
            grown = int.from_bytes(payload, "big") & _LARGEST_WINDOW
            if stream == 0:
                self._window += grown
            elif stream in self._windows:
                self._windows[stream] += grown
            self._flush()
        elif kind == _SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW:
                    grown = value - self._stream_window
                    self._stream_window = value
                    self._windows = {one: room + grown for one, room in self._windows.items()}
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            self._flush()
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RESET:
            self._fail(f"the stream was reset, code {int.from_bytes(payload, 'big')}")
        elif kind == _GOAWAY:
            self._fail(f"the server ends the connection: {payload[8:].decode(errors='replace')}")

    def _headers(self, stream: int, block: bytes) -> None:
        """A block that ends its stream holds the status."""
        if block not in self._failure_of:
            self._failure_of[block] = _failure(
                {str(name): str(value) for name, value in self._decoder.decode(block)}
            )
        failure = self._failure_of[block]
        if failure is not None:
            self._fail(failure)
        elif self._ends_stream:
            now = time.perf_counter()
            self.latencies.append(now - self._sent_at.pop(stream))
            self._windows.pop(stream, None)
            if now < self._until:
                self._ask()
            elif not self._sent_at and not self.done.done():
                self.done.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None
        message = self._next()
        stream = next(self._ids)
        number = stream.to_bytes(4, "big")
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._sent_at[stream] = time.perf_counter()
        head = self._opening + number + self._fields
        if len(body) <= min(_FRAME_BYTES, self._window, self._stream_window) and not self._unsent:
            self._window -= len(body)
            self._transport.write(head + _frame(_DATA, _END_STREAM, stream, body))
            return
        self._transport.write(head)
        view = memoryview(body)
        self._windows[stream] = self._stream_window
        self._unsent[stream] = deque(
            view[start : start + _FRAME_BYTES] for start in range(0, len(view), _FRAME_BYTES)
        )
        self._flush()

    def _flush(self) -> None:
        """Send of what waits whatever the two windows have room for."""
        assert self._transport is not None
        for stream in list(self._unsent):
            waiting = self._unsent[stream]
            while waiting and len(waiting[0]) <= min(self._window, self._windows[stream]):
                piece = waiting.popleft()
                self._window -= len(piece)
                self._windows[stream] -= len(piece)
                flags = 0 if waiting else _END_STREAM
                self._transport.write(_frame(_DATA, flags, stream, bytes(piece)))
            if not waiting:
                del self._unsent[stream]

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(
                ServerAnswerError("a measured request failed", expected="grpc-status 0", got=why)
            )


def _request_head(authority: str, method: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Never indexed: the same bytes then mean the same in every request.
    return Encoder().encode([(name, value, True) for name, value in fields.items()])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _unpadded(payload: bytes, flags: int) -> bytes:
    start, end = 0, len(payload)
    if flags & _PADDED:
        start, end = 1, end - payload[0]
    if flags & _PRIORITY:
        start += 5
    return payload[start:end]


def _failure(fields: dict[str, str]) -> str | None:
    """Why an answer with these headers is none; the first block has no gRPC status yet."""
    if fields.get(":status", "200") != "200":
        return f"HTTP {fields[':status']}"
    if fields.get("grpc-status", "0") != "0":
        return f"grpc-status {fields['grpc-status']}: {fields.get('grpc-message', '')}"
    return None
