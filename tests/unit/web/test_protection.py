"""The middleware around a small app, by ASGI: who gets in, what is refused, what is told."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from contract.errors import (
    ConfigError,
    InputError,
    OverloadedError,
    ServerUnavailableError,
    UnknownModelError,
)
from services.web.access_log import AccessLog
from services.web.body import read_json, read_json_lines
from services.web.protection import Protection, protect
from services.web.settings import WebSettings
from services.web.tokens import add_token

ERRORS = {
    "input": InputError("bad series", where="series 3", got="inf"),
    "config": ConfigError("settings are no TOML", where="/etc/presage/secret.toml"),
    "unavailable": ServerUnavailableError(
        "log_anomaly: the server does not answer",
        where="grpc://10.1.2.3:9001",
        got="connect failed to 10.1.2.3:9001 for /opt/models/x",
        next_command="start it: python -m embedded_triton up --detach",
    ),
    "overloaded": OverloadedError("log_anomaly: the server's queue is full"),
    "unknown": UnknownModelError("the server has no model 'x'"),
    "surprise": RuntimeError("/root/secret.py broke"),
}


def make_app() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Any:
        return await read_json(request)

    @app.post("/lines")
    async def lines(request: Request) -> Any:
        return [[n, json.loads(line)] async for n, line in read_json_lines(request)]

    @app.get("/fail/{kind}")
    async def fail(kind: str) -> None:
        raise ERRORS[kind]

    @app.get("/typed/{number}")
    async def typed(number: int) -> int:
        return number

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a\n"
            raise RuntimeError("late")

        return StreamingResponse(parts())

    return app


class Guarded:
    def __init__(self, **settings: Any) -> None:
        self.log = io.BytesIO()
        settings = {"no_tokens": True, **settings}
        self.app: Protection = protect(
            make_app(),
            WebSettings.load(**settings),
            api="log_anomaly",
            access_log=AccessLog(self.log),
        )
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def guarded_with(tokens: Path, **settings: Any) -> Guarded:
    return Guarded(no_tokens=False, tokens_file=tokens, **settings)


async def test_who_has_no_token_a_wrong_one_or_one_for_another_api(tokens: Path) -> None:
    mine = add_token(tokens, "mine", ["log_anomaly"])
    other = add_token(tokens, "other", ["metric_forecast"])
    guarded = guarded_with(tokens)

    async def status(**headers: str) -> tuple[int, str]:
        answer = await guarded.client.post("/echo", json={"a": 1}, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    assert await status() == (401, "no_token")
    assert await status(authorization="Basic eA==") == (401, "no_token")
    assert await status(authorization="Bearer presage_x") == (401, "bad_token")
    assert await status(authorization=f"Bearer {other}") == (403, "forbidden")
    assert await status(authorization=f"bearer {mine}") == (200, "")
    refused = await guarded.client.post("/echo", json={})
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    log = guarded.log.getvalue().decode()
    assert mine not in log
    assert other not in log
    assert [line["caller"] for line in guarded.logged()] == ["", "", "", "other", "mine", ""]


async def test_health_and_metrics_need_no_token(tokens: Path) -> None:
    add_token(tokens, "mine", ["all"])
    guarded = guarded_with(tokens)
    await guarded.client.post("/echo", json={})
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await guarded.client.get(path)).status_code == 200
    page = (await guarded.client.get("/metrics")).text
    assert 'presage_web_refused_total{api="log_anomaly",reason="no_token"} 1.0' in page
    tokens.unlink()
    guarded.app._tokens._looked_at = -1e9  # type: ignore[union-attr]
    await guarded.client.post("/echo", json={}, headers={"authorization": "Bearer x"})
    assert (await guarded.client.get("/readyz")).status_code == 503


async def test_a_token_has_a_rate(tokens: Path) -> None:
    mine = {"authorization": f"Bearer {add_token(tokens, 'mine', ['all'])}"}
    fast = {"authorization": f"Bearer {add_token(tokens, 'fast', ['all'], 0)}"}
    guarded = guarded_with(tokens, rate_per_second=0.01, burst=2)
    seen = [(await guarded.client.post("/echo", json={}, headers=mine)) for _ in range(3)]
    assert [answer.status_code for answer in seen] == [200, 200, 429]
    assert 90 <= int(seen[-1].headers["retry-after"]) <= 100
    for _ in range(5):
        assert (await guarded.client.post("/echo", json={}, headers=fast)).status_code == 200


async def test_without_tokens_another_sites_name_is_refused() -> None:
    guarded = Guarded()
    for host, status in (("localhost:8001", 200), ("[::1]:80", 200), ("evil.example", 403)):
        answer = await guarded.client.post("/echo", json={}, headers={"host": host})
        assert answer.status_code == status, host


@pytest.mark.parametrize("kind", ["config", "unavailable", "surprise"])
async def test_no_path_address_or_trace_is_told(kind: str) -> None:
    guarded = Guarded()
    answer = await guarded.client.get(f"/fail/{kind}")
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["status"] == answer.status_code
    for inside in ("/etc", "/opt", "/root", "10.1.2.3", "9001", "Traceback", "embedded_triton"):
        assert inside not in answer.text
    assert told["request_id"] == answer.headers["x-request-id"]
    assert guarded.logged()[-1]["reason"] == told["code"]


async def test_errors_map_once_to_status_code_and_language() -> None:
    guarded = Guarded()
    for kind, status in (("input", 422), ("unavailable", 503), ("overloaded", 429)):
        answer = await guarded.client.get(f"/fail/{kind}")
        assert answer.status_code == status
        assert ("retry-after" in answer.headers) == (kind != "input")
    answer = await guarded.client.get("/fail/input", headers={"accept-language": "zh-CN,en;q=.5"})
    assert answer.json()["title"] == "输入无法处理"
    assert answer.headers["content-language"] == "zh"
    assert "series 3" in answer.json()["detail"]
    assert (await guarded.client.get("/nowhere")).json()["code"] == "not_found"
    wrong = await guarded.client.get("/echo")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (await guarded.client.get("/typed/x")).status_code == 422


async def test_request_ids_are_taken_over_when_harmless() -> None:
    guarded = Guarded()
    for given, kept in (("abc-1.2_3", True), ("a b", False), ("x" * 65, False)):
        answer = await guarded.client.get("/healthz", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) == kept


async def test_the_log_names_the_route_and_no_query_or_body() -> None:
    guarded = Guarded()
    await guarded.client.get("/typed/7?secret=1")
    await guarded.client.post("/echo", json={"word": "hunter2"})
    first, second = guarded.logged()
    assert first["route"] == "/typed/{number}"
    assert second["received_bytes"] > 0
    assert "secret" not in guarded.log.getvalue().decode()
    assert "hunter2" not in guarded.log.getvalue().decode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": NaN}', 400),
        (b'{"a": Infinity}', 400),
        (b"[" * 100_000, 400),
        (b'{"a": 1e999}', 400),
        (b'{"a": "\xff"}', 400),
        (b"", 400),
        (b'{"a": ' + b"1" * 40 + b"}", 200),
    ],
)
async def test_json_is_strict(body: bytes, status: int) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = await Guarded().client.post("/echo", content=body, headers=headers)
    assert answer.status_code == status, answer.text


async def test_other_types_and_encodings_are_refused() -> None:
    guarded = Guarded()
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "br"},
        {},
    ):
        answer = await guarded.client.post("/echo", content=b"{}", headers=headers)
        assert answer.status_code == 415, headers


async def post_gzip(guarded: Guarded, packed: bytes) -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return await guarded.client.post("/echo", content=packed, headers=headers)


async def test_gzip_is_unpacked_also_in_members_and_bombs_are_not() -> None:
    guarded = Guarded(largest_body_bytes=1 << 20)
    value = {"text": "x" * 700_000}
    raw = json.dumps(value).encode()
    assert (await post_gzip(guarded, gzip.compress(raw))).json() == value
    members = gzip.compress(raw[:10]) + gzip.compress(raw[10:])
    assert (await post_gzip(guarded, members)).json() == value
    assert (await post_gzip(guarded, gzip.compress(b" " * (64 << 20)))).status_code == 413
    assert (await post_gzip(guarded, gzip.compress(raw)[:-9])).status_code == 400
    assert (await post_gzip(guarded, b"no gzip")).status_code == 400
    assert (await post_gzip(guarded, gzip.compress(b"") * 100_000)).status_code == 413
    assert guarded.app._held.size_bytes == 0


async def test_bodies_and_headers_are_bounded() -> None:
    guarded = Guarded(largest_body_bytes=1 << 20, largest_held_bytes=1 << 21)

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    told = await guarded.client.post("/echo", content=b" " * (1 << 21), headers=headers)
    assert told.status_code == 413
    untold = await guarded.client.post("/echo", content=chunks(2000), headers=headers)
    assert untold.status_code == 413
    large = {f"x-{i}": "y" * 600 for i in range(40)}
    assert (await guarded.client.post("/echo", json={}, headers=large)).status_code == 431
    many = {f"x-{i}": "y" for i in range(80)}
    assert (await guarded.client.post("/echo", json={}, headers=many)).status_code == 431
    assert (await guarded.client.get("/" + "p" * 20_000)).status_code == 431


async def call(app: Protection, receive: Any, **scope: Any) -> list[dict[str, Any]]:
    """One ASGI request with a body that comes as ``receive`` says."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"content-type", scope.pop("kind", b"application/json")),
        (b"transfer-encoding", b"chunked"),
    ]
    path = scope.pop("path", "/echo")
    whole = {
        "type": "http",
        "method": scope.pop("method", "POST"),
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    await app(whole, receive, send)
    return sent


async def never() -> Any:
    await asyncio.Event().wait()


async def test_a_body_that_does_not_come_is_refused_and_frees_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.web.answer._LINGER_SECONDS", 0.01)
    guarded = Guarded(body_grace_seconds=0.05, stream_idle_seconds=0.05)
    for path, kind in (("/echo", b"application/json"), ("/lines", b"application/x-ndjson")):
        sent = await call(guarded.app, never, path=path, kind=kind)
        assert sent[0]["status"] == 408
    assert guarded.app.in_flight.count == 0


async def test_more_at_a_time_than_allowed_are_told_to_come_again() -> None:
    guarded = Guarded(in_flight=1)
    waiting = asyncio.create_task(call(guarded.app, never))
    await asyncio.sleep(0)
    answer = await guarded.client.post("/echo", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await guarded.client.post("/echo", json={})).status_code == 200


async def test_lines_come_as_they_are_cut() -> None:
    guarded = Guarded(largest_body_bytes=1024)
    body = b'{"a":1}\n\n{"b":2}\r\n' + b'{"c":3}\n' * 500 + b'{"d":4}'
    headers = {"content-type": "application/x-ndjson"}
    answer = await guarded.client.post("/lines", content=body, headers=headers)
    told = answer.json()
    assert told[0] == [1, {"a": 1}]
    assert told[1] == [3, {"b": 2}]
    assert told[-1] == [504, {"d": 4}]


async def test_cors_is_closed_unless_an_origin_is_named() -> None:
    origin = "https://grafana.example"
    asked = {"origin": origin, "access-control-request-method": "POST"}
    closed = Guarded()
    answer = await closed.client.options("/echo", headers=asked)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    opened = Guarded(cors_origins=(origin,))
    answer = await opened.client.options("/echo", headers=asked)
    assert answer.status_code == 204
    answer = await opened.client.post("/echo", json={}, headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    answer = await opened.client.post("/echo", json={}, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_security_headers_are_on_every_answer() -> None:
    for path in ("/healthz", "/nowhere", "/typed/1"):
        headers = (await Guarded().client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_a_stream_that_breaks_is_logged_and_frees_its_place() -> None:
    guarded = Guarded()
    await call(guarded.app, never, method="GET", path="/stream")
    assert guarded.logged()[-1]["reason"] == "internal"
    assert guarded.app.in_flight.count == 0


async def test_when_draining_new_requests_are_sent_away() -> None:
    guarded = Guarded()
    guarded.app.draining = True
    assert (await guarded.client.get("/readyz")).status_code == 503
    answer = await guarded.client.post("/echo", json={})
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")


async def test_the_callers_deadline_is_read() -> None:
    guarded = Guarded()
    for given, status in (("0.5", 200), ("0", 400), ("nan", 400), ("1e9", 400), ("x", 400)):
        answer = await guarded.client.post("/echo", json={}, headers={"x-request-timeout": given})
        assert answer.status_code == status, given
