"""``bounded_client``: an httpx client whose timeout is of the whole request.

httpx's own timeouts are of one read or write: who sends or takes a byte a second is never late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

_PIECE_BYTES = 64 << 10


def bounded_client(timeout_seconds: float, **given: Any) -> httpx.Client:
    """Safe to use from several threads, as any client. ``given``: of httpx.Client.

    A request, connecting and reading its answer included, ends within ``timeout_seconds`` or raises
    httpx.TimeoutException; not one that is streamed.
    """
    transport = _BoundedTransport(
        timeout_seconds,
        verify=given.pop("verify", True),
        limits=given.pop("limits", httpx.Limits()),
    )
    return httpx.Client(timeout=timeout_seconds, trust_env=False, transport=transport, **given)


class _BoundedTransport(httpx.HTTPTransport):
    def __init__(self, timeout_seconds: float, **given: Any) -> None:
        super().__init__(trust_env=False, **given)
        self._timeout_seconds = timeout_seconds
        self._deadline = _Deadline()
        # httpx has no parameter for what its pool is made of.
        self._pool._network_backend = _Backend(self._pool._network_backend, self._deadline)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._deadline.at = time.monotonic() + self._timeout_seconds
        return super().handle_request(request)


class _Deadline(threading.local):
    """Of the request that the thread is making."""

    at: float = float("inf")

    def left(self, timeout: float | None) -> float:
        left = self.at - time.monotonic()
        return max(1e-3, left if timeout is None else min(left, timeout))

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend, deadline: _Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(
            host, port, self._deadline.left(timeout), local_address, socket_options
        )
        return _Stream(stream, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_unix_socket(path, self._deadline.left(timeout), socket_options)
        return _Stream(stream, self._deadline)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._deadline.is_over:
            raise httpcore.ReadTimeout("the answer did not end in time")
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            if self._deadline.is_over:
                raise httpcore.WriteTimeout("the request was not taken in time")
            piece = buffer[start : start + _PIECE_BYTES]
            self._inner.write(piece, self._deadline.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, *given: Any, **named: Any) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(*given, **named), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
