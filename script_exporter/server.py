"""``PageServer``: HTTP pages, each request in a thread of its own, at most so many at a time."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from contract.errors import ServerSetupError

_CONNECTIONS = 64
"""At once, idle ones included; more are closed with a 503."""
_COMPRESS_FROM = 2048
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Page = Callable[[Mapping[str, str]], Answer]
"""Headers of the request → answer."""


def parse_address(text: str) -> tuple[str, int]:
    """``:5535`` (every interface), ``127.0.0.1:5535``, ``[::1]:5535``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"expected host:port, got {text!r}")
    return host or "0.0.0.0", int(port)


class PageServer:
    """``pages``: (method, path) → page. Port 0 takes a free one."""

    def __init__(
        self,
        address: tuple[str, int],
        pages: Mapping[tuple[str, str], Page],
        timeout_seconds: float = 30.0,
    ) -> None:
        class Handler(_Handler):
            timeout = timeout_seconds

        Handler.pages = pages
        try:
            self._server = _Server(address, Handler)
        except OSError as error:
            raise ServerSetupError(
                "cannot listen",
                where=f"{address[0]}:{address[1]}",
                got=error.strerror or str(error),
                next_command="stop what listens there, or choose another -web.listen-address",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )

    @property
    def url(self) -> str:
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        # Not server_close: it would wait for the slowest reader.
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.sendall(_BUSY)
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[tuple[str, str], Page]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._route("GET")

    do_HEAD = do_GET  # noqa: N815  # the name BaseHTTPRequestHandler looks for

    def do_POST(self) -> None:
        self._route("POST")

    def _route(self, method: str) -> None:
        # No page reads a body: whatever comes would be taken for the next request.
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        path = self.path.partition("?")[0]
        page = self.pages.get((method, path))
        if page is not None:
            self._answer(page(dict(self.headers.items())))
            return
        known = sorted(word for word, place in self.pages if place == path)
        if known:
            status, text = HTTPStatus.METHOD_NOT_ALLOWED, f"expected {', '.join(known)}\n"
        else:
            places = ", ".join(sorted({place for _, place in self.pages}))
            status, text = HTTPStatus.NOT_FOUND, f"expected one of {places}\n"
        self._answer(Answer(text.encode(), status=status))

    def _answer(self, answer: Answer) -> None:
        body = answer.body
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if len(body) >= _COMPRESS_FROM and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "script_exporter"

    def log_message(self, format: str, *arguments: Any) -> None:
        """A line a scrape would drown what matters."""
