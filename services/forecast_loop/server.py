"""``MetricsServer``: /metrics, /healthz and /readyz, each request in a thread of its own.

The loop never waits for a reader: a page is bytes that do not change once they are published.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from contract.errors import ServerSetupError
from services.forecast_loop.exposition import CONTENT_TYPE, Exposition

_READER_SECONDS = 60.0
"""A reader that takes longer for a request or an answer is let go."""
_READERS = 16
"""At once; more are answered 503."""


class MetricsServer:
    """Serves an Exposition on a loopback or other address; port 0 takes a free one.

    ``not_ready``: why no forecast can be served now, or None.
    """

    def __init__(
        self, address: tuple[str, int], exposition: Exposition, not_ready: Callable[[], str | None]
    ) -> None:
        readers = threading.BoundedSemaphore(_READERS)

        class Handler(_Handler):
            pass

        Handler.exposition = exposition
        Handler.not_ready = staticmethod(not_ready)
        Handler.readers = readers
        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise ServerSetupError(
                "the loop cannot listen",
                where=f"{address[0]}:{address[1]}",
                got=error.strerror or str(error),
                next_command="stop what listens there, or set loop.listen",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

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


class _Handler(BaseHTTPRequestHandler):
    exposition: Exposition
    not_ready: Callable[[], str | None]
    readers: threading.BoundedSemaphore
    protocol_version = "HTTP/1.1"
    timeout = _READER_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if not self.readers.acquire(blocking=False):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"too many readers\n")
            return
        try:
            self._route()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.readers.release()

    def _route(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            page = self.exposition.current()
            if "gzip" in self.headers.get("Accept-Encoding", ""):
                self._answer(HTTPStatus.OK, page.gzipped(), CONTENT_TYPE, "gzip")
            else:
                self._answer(HTTPStatus.OK, page.body, CONTENT_TYPE)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            why = self.not_ready()
            status = HTTPStatus.OK if why is None else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, f"{why or 'ready'}\n".encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"expected /metrics, /healthz or /readyz\n")

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain", encoding: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A line a scrape would drown what matters."""
