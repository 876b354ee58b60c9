"""Request ids, and one JSON line a request: never a body, a query string or a token."""

from __future__ import annotations

import re
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import BinaryIO

import orjson

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HEADER = b"x-request-id"


def request_id_of(given: bytes) -> str:
    """The caller's id when it is a harmless one, else a new one."""
    if given and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(12)


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as far as it is known; in ``scope["presage"]``.

    route: the pattern, never the path that was asked. deadline_seconds: what the caller allows.
    reason: why it was refused or failed, "" when it was answered.
    """

    request_id: str
    method: str
    client: str = ""
    caller: str = ""
    route: str = "none"
    status: int = 0
    reason: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    chinese: bool = False
    deadline_seconds: float = 60.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


class AccessLog:
    """Lines to a stream (stdout unless given another); None is silent."""

    def __init__(self, stream: BinaryIO | None = None, *, silent: bool = False) -> None:
        self._stream = None if silent else (stream or sys.stdout.buffer)

    def write(self, api: str, exchange: Exchange) -> None:
        if self._stream is None:
            return
        told = {
            "time": time.time(),
            "api": api,
            "request_id": exchange.request_id,
            "client": exchange.client,
            "caller": exchange.caller,
            "method": exchange.method,
            "route": exchange.route,
            "status": exchange.status,
            "milliseconds": round(exchange.seconds * 1000, 3),
            "received_bytes": exchange.received_bytes,
            "sent_bytes": exchange.sent_bytes,
        }
        if exchange.reason:
            told["reason"] = exchange.reason
        try:
            self._stream.write(orjson.dumps(told) + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever read the log went away; the service goes on.
            self._stream = None
