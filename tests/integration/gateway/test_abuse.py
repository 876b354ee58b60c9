"""Hand-written abuse over raw connections: refused by name, nothing breaks, everything goes on."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.gateway_process import Gateway, gateway_process

SHORT = {
    "PRESAGE_HEADER_SECONDS": "1",
    "PRESAGE_BODY_GRACE_SECONDS": "1",
    "PRESAGE_STREAM_IDLE_SECONDS": "1",
    "PRESAGE_LARGEST_BODY_BYTES": str(4 << 20),
    "PRESAGE_IN_FLIGHT": "4",
    "PRESAGE_CONNECTIONS": "32",
}
JSON = {"content-type": "application/json"}
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def guarded(triton: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("guarded")
    words = ("log_anomaly", "--no-tokens", "--port=0")
    with gateway_process(folder, f"grpc://{triton.grpc_url}", *words, **SHORT) as running:
        yield running


@pytest.fixture
def client(guarded: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.urls["log_anomaly"], timeout=30, trust_env=False) as asking:
        yield asking
        # Whatever was done to it: it still answers.
        assert asking.post("/predict", json={"text": "fine"}).status_code == 200
    assert "Traceback" not in guarded.problems


def connect(guarded: Gateway) -> socket.socket:
    host, port = guarded.urls["log_anomaly"].removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def answer_to(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    told = b""
    while True:
        try:
            part = connection.recv(65_536)
        except ConnectionResetError:
            return told
        if not part:
            return told
        told += part


def test_slowloris_headers(guarded: Gateway, client: httpx.Client) -> None:
    connections = [connect(guarded) for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-A: "[: 60 - number])
    assert client.post("/predict", json={"text": "meanwhile"}).status_code == 200
    for connection in connections:
        assert answer_to(connection).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_slow_bodies_and_streams(guarded: Gateway, client: httpx.Client) -> None:
    slow, stream = connect(guarded), connect(guarded)
    slow.sendall(POST + b'Content-Length: 1000\r\n\r\n{"te')
    stream.sendall(
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for connection in (slow, stream):
        assert answer_to(connection).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_places_that_are_taken_are_not_queued_for(guarded: Gateway, client: httpx.Client) -> None:
    holders = [connect(guarded) for _ in range(4)]
    for holder in holders:
        holder.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
    answers = []
    deadline = time.monotonic() + 10
    # Until the four are seen to be in flight.
    while not answers or (answers[-1].status_code != 503 and time.monotonic() < deadline):
        answers.append(client.post("/predict", json={"text": "x"}))
    assert answers[-1].status_code == 503
    assert answers[-1].headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200
    for holder in holders:
        holder.close()
    while client.post("/predict", json={"text": "x"}).status_code == 503:
        assert time.monotonic() < deadline


def test_floods_of_headers(guarded: Gateway, client: httpx.Client) -> None:
    for flood in (b"X-A: b\r\n" * 10_000, b"X-A: " + b"b" * 100_000 + b"\r\n"):
        with connect(guarded) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + flood)
            assert answer_to(connection).startswith(b"HTTP/1.1 431 ")
    many = {f"x-{i}": "y" for i in range(100)}
    assert client.post("/predict", json={}, headers=many).status_code == 431
    assert client.get("/" + "p" * 30_000).status_code in (400, 431)


def test_more_connections_than_allowed(guarded: Gateway) -> None:
    connections = [connect(guarded) for _ in range(40)]
    closed = 0
    for connection in connections:
        connection.settimeout(5)
        try:
            closed += connection.recv(1) == b""
        except ConnectionResetError:
            closed += 1
        except TimeoutError:
            pass
        connection.close()
    assert closed >= 8


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http(guarded: Gateway, client: httpx.Client, sent: bytes) -> None:
    with connect(guarded) as connection:
        connection.sendall(sent)
        told = answer_to(connection)
    assert told.startswith(b"HTTP/1.1 400 "), told[:80]
    assert b"application/problem+json" in told


def test_bombs_and_large_bodies(client: httpx.Client) -> None:
    bomb = gzip.compress(b" " * (512 << 20), 9)
    assert len(bomb) < 1 << 20
    packed = JSON | {"content-encoding": "gzip"}
    assert client.post("/predict", content=bomb, headers=packed).status_code == 413
    twice = gzip.compress(bomb)
    assert client.post("/predict", content=twice, headers=packed).status_code == 400
    assert client.post("/predict", content=b" " * (5 << 20), headers=JSON).status_code == 413
    untold = (b" " * 65_536 for _ in range(200))
    assert client.post("/predict", content=untold, headers=JSON).status_code == 413
    for encoding in ("br", "zstd", "gzip, gzip", "x" * 5000):
        headers = JSON | {"content-encoding": encoding}
        assert client.post("/predict", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 200_000 + b"]" * 200_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"text": NaN}', 400),
        (b'{"text": Infinity}', 400),
        (b'{"text": 1e999}', 400),
        (b'{"text": ' + b"9" * 400 + b"}", 400),
        (b'{"text": ' + b"9" * 100 + b"}", 422),
        (b'{"text": "\\ud800"}', 400),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "a", "text": {}}', 422),
        (b"\xef\xbb\xbf{}", 400),
        (b"null", 422),
        (b"", 400),
        (b'{"text": "\\u0000\\u0001\\u001b[2J"}', 200),
        (json.dumps({"text": "x" * 1_000_000}).encode(), 200),
        (json.dumps({"text": "../../../etc/passwd"}).encode(), 200),
    ],
)
def test_odd_json(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == status, answer.text[:300]
    assert "/tmp" not in answer.text
    assert "Traceback" not in answer.text


def test_numbers_that_are_none_or_too_large(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.urls["metric_forecast"], timeout=30) as forecasts:
        for number, status in (
            (b"1e300", 422),
            (b"-1e39", 422),
            (b"1e-320", 200),
            (b"9" * 60, 422),
            (b"true", 422),
            (b'"1"', 422),
            (b"NaN", 400),
            (b"null", 422),
        ):
            body = b'{"series": [' + b", ".join([number] * 30) + b"]}"
            answer = forecasts.post("/predict", content=body, headers=JSON)
            assert answer.status_code == status, (number, answer.text)


def test_a_hundred_thousand_lines(client: httpx.Client) -> None:
    lines = ["x"] * 100_000
    assert client.post("/v1/logs", json={"lines": lines}).status_code == 413
    body = b'"generating core.2275"\n' * 100_000
    with client.stream(
        "POST", "/v1/logs", content=body, headers={"content-type": "application/x-ndjson"}
    ) as answer:
        last, count = "", 0
        for line in answer.iter_lines():
            count += 1
            last = line
    assert (count, json.loads(last)["line"]) == (100_000, 100_000)


def test_other_content_types(client: httpx.Client) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "",
        "application/jsonx",
    ):
        answer = client.post("/predict", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 415, kind


def test_paths_that_leave(guarded: Gateway, client: httpx.Client, tmp_path: Path) -> None:
    for path in (
        b"/../../etc/passwd",
        b"/assets/../../../etc/passwd",
        b"/assets/%2e%2e/%2e%2e/etc/passwd",
        b"/docs/..%2f..%2fetc/passwd",
        b"/%00",
        b"//etc/passwd",
    ):
        with connect(guarded) as connection:
            connection.sendall(
                b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            told = answer_to(connection)
        assert told.split(b" ")[1] in (b"400", b"404"), path
        assert b"root:" not in told


def test_another_sites_page_cannot_ask(client: httpx.Client) -> None:
    """DNS rebinding gives another Host; a form can only send what is refused."""
    rebound = client.post("/predict", json={"text": "x"}, headers={"host": "evil.example"})
    assert rebound.status_code == 403
    answer = client.options(
        "/predict",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )
    assert "access-control-allow-origin" not in answer.headers


def test_tls_client_on_a_plain_port(guarded: Gateway, client: httpx.Client) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError), connect(guarded) as connection:
        context.wrap_socket(connection)
