"""A call's own deadline holds for all that it asks, also for what it asks once per client."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import clients
from clients.policy import CallPolicy
from contract.errors import ServerError

PATIENT = CallPolicy(attempts=3, deadline_seconds=20.0)
QUESTIONS: dict[str, Any] = {
    "MetricForecastClient": lambda client: client.forecast(
        [[1.0] * 40], step_seconds=300, deadline_seconds=0.5
    ),
    "LogAnomalyClient": lambda client: client.classify(["disk failed"], deadline_seconds=0.5),
    "TrainFailureRCAClient": lambda client: client.diagnose(["boom"], deadline_seconds=0.5),
}


@pytest.fixture
def silent_address() -> Iterator[str]:
    """It takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        yield f"{host}:{port}"


@pytest.fixture
def forgetful_address() -> Iterator[str]:
    """A scripted server: it knows no model, and never tells which it has."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = b'{"error":"Request for unknown model: none is there"}'
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            ended.wait(20)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    ended = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        ended.set()
        server.shutdown()


def ask_once(way: str, name: str, url: str) -> float:
    """Seconds until it fails, as it must."""
    make, ask = getattr(clients, way + name), QUESTIONS[name]

    async def ask_async() -> None:
        async with make(url, PATIENT) as client:
            await ask(client)

    def ask_here() -> None:
        with make(url, PATIENT) as client:
            ask(client)

    began = time.monotonic()
    with pytest.raises(ServerError):
        asyncio.run(ask_async()) if way else ask_here()
    return time.monotonic() - began


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("way", ["", "Async"])
def test_it_holds_where_nobody_answers(
    way: str, name: str, scheme: str, silent_address: str
) -> None:
    assert ask_once(way, name, f"{scheme}://{silent_address}") < 10.0


@pytest.mark.parametrize("way", ["", "Async"])
def test_it_holds_for_the_question_why_a_model_is_unknown(way: str, forgetful_address: str) -> None:
    took = ask_once(way, "LogAnomalyClient", f"http://{forgetful_address}")
    assert took < 5.0  # the question alone may take ten
