"""/metrics for readers that are many, slow, or ask for gzip; own metrics; the problem log."""

from __future__ import annotations

import gzip
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from contract import metric_names as names
from contract.errors import ServerSetupError
from services.forecast_loop.exposition import CONTENT_TYPE, Exposition
from services.forecast_loop.server import MetricsServer
from services.forecast_loop.telemetry import Telemetry
from services.problems import ProblemLog
from tests.unit.forecast_loop.test_exposition import NOW, parse, snapshot


@pytest.fixture
def exposition() -> Exposition:
    return Exposition(lambda: b"own 1\n", lambda: NOW)


@pytest.fixture
def why() -> list[str | None]:
    return [None]


@pytest.fixture
def server(exposition: Exposition, why: list[str | None]) -> Iterator[MetricsServer]:
    with MetricsServer(("127.0.0.1", 0), exposition, lambda: why[0]) as server:
        yield server


def get(server: MetricsServer, path: str, encoding: str = "identity") -> httpx.Response:
    host, port = server.address
    return httpx.get(
        f"http://{host}:{port}{path}", headers={"Accept-Encoding": encoding}, trust_env=False
    )


def test_pages(server: MetricsServer, exposition: Exposition, why: list[str | None]) -> None:
    assert get(server, "/metrics").content == b"own 1\n"
    page = exposition.publish([snapshot([("a", "x")], [[1, 2]])])
    plain = get(server, "/metrics")
    assert plain.content == page.body
    assert plain.headers["Content-Type"] == CONTENT_TYPE
    assert "Content-Encoding" not in plain.headers
    packed = get(server, "/metrics", "gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == page.body
    assert int(packed.headers["Content-Length"]) == len(gzip.compress(page.body, 1, mtime=0))
    assert get(server, "/healthz").text == "ok\n"
    assert get(server, "/readyz").status_code == 200
    why[0] = "the newest forecast is 901 s old"
    assert (get(server, "/readyz").status_code, get(server, "/readyz").text) == (
        503,
        "the newest forecast is 901 s old\n",
    )
    assert get(server, "/healthz").status_code == 200
    assert get(server, "/elsewhere").status_code == 404


def test_a_reader_that_reads_nothing_holds_up_nobody(
    server: MetricsServer, exposition: Exposition
) -> None:
    keys = [("a", str(i)) for i in range(50_000)]
    exposition.publish([snapshot(keys, [[1.0, 2.0]] * len(keys))])
    with socket.create_connection(server.address) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(1)
        # 20 MB wait for it; the next page is published and read all the same.
        began = time.monotonic()
        exposition.publish([snapshot([("a", "x")], [[1, 2]])])
        assert b"ai_forecast_quota" in get(server, "/metrics").content
        assert time.monotonic() - began < 5
    began = time.monotonic()
    server.__exit__(None, None, None)
    assert time.monotonic() - began < 5
    server._server.socket.close()


def test_a_port_that_is_taken(server: MetricsServer, exposition: Exposition) -> None:
    with pytest.raises(ServerSetupError, match=r"loop\.listen"):
        MetricsServer(server.address, exposition, lambda: None)


def test_own_metrics_have_the_contracts_names() -> None:
    telemetry = Telemetry(300)
    telemetry.read("m", 10, 12.5)
    telemetry.know_sources("m", ("lstm", "last"))
    telemetry.forecast("m", 7, {"too_few_points": 3}, Counter(lstm=7), NOW)
    telemetry.query_failed("other", "unavailable")
    telemetry.warn("m", "duplicate", 2)
    telemetry.skew(-3.5)
    telemetry.publish_failed("pushgateway")
    telemetry.cycle("partial")
    telemetry.durations({"all": 1.5})
    telemetry.observe_batch("metric_forecast_12h", 0.2)
    found = {(name, dict(labels).get("metric")): v for (name, labels), v in
             parse(telemetry.render()).items()}  # fmt: skip
    declared = {
        value
        for name, value in vars(names).items()
        if name.startswith("LOOP_") and name != "LOOP_PREFIX"
    }
    exposed = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
               for name, _ in found}  # fmt: skip
    assert exposed == declared
    assert found[names.LOOP_LAST_SUCCESS, "m"] == NOW
    assert (names.LOOP_LAST_SUCCESS, "other") not in found
    shares = {dict(labels)["source"]: value for (name, labels), value in
              parse(telemetry.render()).items() if name == names.LOOP_FALLBACK_RATIO}  # fmt: skip
    assert shares == {"lstm": 1.0, "last": 0.0}


def test_a_problem_is_logged_once_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    log = ProblemLog(logging.getLogger("problems"), 300.0, lambda: clock[0])
    said = []
    for moment in (0.0, 1.0, 299.0, 300.0, 301.0):
        clock[0] = moment
        said.append(log.report("m", "refused", "too many samples"))
    assert said == [True, False, False, True, False]
    assert log.report("m", "duplicate", "x")
    assert log.report("n", "refused", "x")
    assert caplog.messages[1] == "m: refused: too many samples (and 2 times more since)"
