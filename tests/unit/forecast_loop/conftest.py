"""A loopback HTTP server in this process that answers as a test wants."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

Respond = Callable[[str, dict[str, str]], tuple[int, bytes]]


class FakeServer:
    """``respond(path, parameters)`` gives (status, body); ``asked`` holds every request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.respond: Respond = lambda path, parameters: (404, b"")
        self.cut = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            do_PUT = do_POST  # noqa: N815

            def _answer(self, body: bytes) -> None:
                parts = urlsplit(self.path)
                text = body.decode("utf-8", "replace") if body else parts.query
                parameters = {name: values[0] for name, values in parse_qs(text).items()}
                fake.asked.append((parts.path, parameters))
                fake.headers.append(dict(self.headers.items()))
                fake.bodies.append(body)
                status, answer = fake.respond(parts.path, parameters)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer) + 10 * fake.cut))
                self.end_headers()
                self.wfile.write(answer)
                self.close_connection = fake.cut

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def success(data: Any, **more: Any) -> bytes:
    return json.dumps({"status": "success", "data": data, **more}).encode()


def refused(status: int, words: str, kind: str = "execution") -> tuple[int, bytes]:
    answer = {"status": "error", "errorType": kind, "error": words}
    return status, json.dumps(answer).encode()


def matrix(series: dict[tuple[tuple[str, str], ...], dict[int, float]]) -> bytes:
    """``{labels: {moment: value}}`` as query_range answers it; NaN is a gap."""
    result = [
        {
            "metric": dict(labels),
            "values": [[t, str(v)] for t, v in sorted(points.items()) if not math.isnan(v)],
        }
        for labels, points in series.items()
    ]
    return success({"resultType": "matrix", "result": [s for s in result if s["values"]]})
