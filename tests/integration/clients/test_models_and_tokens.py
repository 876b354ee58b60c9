"""``models`` against a real tritonserver, its colours, and the token on the wire."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients import AsyncServerClient, CallPolicy, ServerClient
from clients.table import RED, RESET, render
from contract.errors import PresageError
from tests.integration.clients.conftest import run_clients

ONCE = CallPolicy(attempts=1, deadline_seconds=10)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_models_tells_what_was_asked(
    urls: dict[str, str], repository_root: Path, scheme: str, tmp_path: Path
) -> None:
    def requests() -> dict[str, int]:
        told = run_clients(repository_root, urls[scheme], "models", "--json")
        assert told.returncode == 0, told.stderr
        return {r["model"]: r["requests"] for r in map(json.loads, told.stdout.splitlines())}

    before = requests()
    log = tmp_path / "a.log"
    log.write_text("line 7\n")
    run_clients(repository_root, urls[scheme], "logs", str(log))
    after = requests()
    assert after["log_anomaly"] == before["log_anomaly"] + 1
    assert after["train_failure_rca"] == before["train_failure_rca"]
    table = run_clients(repository_root, urls[scheme], "models").stdout.decode()
    assert "READY" in table
    assert "\x1b" not in table


def test_models_of_nobody(repository_root: Path) -> None:
    told = run_clients(repository_root, "grpc://127.0.0.1:9", "models", "--deadline-seconds", "1")
    assert told.returncode == 12


def test_a_coloured_cell_keeps_its_column() -> None:
    rows = [["a", "READY", "x"], ["bb", "DOWN", "y"]]
    plain = render(["model", "state", "z"], rows)
    painted = render(["model", "state", "z"], rows, colours={"DOWN": RED})
    assert painted != plain
    assert painted.replace(RED, "").replace(RESET, "") == plain


class _Seen(http.server.BaseHTTPRequestHandler):
    tokens: list[str | None]

    def do_POST(self) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("is_async", [False, True])
def test_the_token_is_in_the_http_headers(is_async: bool) -> None:
    class Seen(_Seen):
        pass

    Seen.tokens = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _ask(f"http://127.0.0.1:{server.server_address[1]}", is_async)
        server.shutdown()
    assert Seen.tokens == ["Bearer s3cret"]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_token_is_in_the_grpc_metadata(is_async: bool) -> None:
    seen: list[Any] = []

    class Refuser(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> None:
            seen.append(dict(details.invocation_metadata).get("authorization"))

    server = grpc.server(ThreadPoolExecutor(1), handlers=(Refuser(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(PresageError):
        _ask(f"grpc://127.0.0.1:{port}", is_async)
    server.stop(None)
    assert seen == ["Bearer s3cret"]


def _ask(url: str, is_async: bool) -> None:
    async def ask() -> None:
        async with AsyncServerClient(url, ONCE, token="s3cret") as client:
            await client.models()

    if is_async:
        asyncio.run(ask())
        return
    with ServerClient(url, ONCE, token="s3cret") as client:
        client.models()
