"""The HTTP API: retries, refusals in Prometheus' own words, credentials, clocks."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from contract.errors import (
    ConfigError,
    DeadlineExceededError,
    QueryError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.forecast_loop import prometheus as module
from services.forecast_loop.config import PrometheusSettings
from services.forecast_loop.grid import Grid
from services.forecast_loop.prometheus import Prometheus
from tests.unit.forecast_loop.conftest import FakeServer, matrix, refused, success

GRID = Grid(3000, 300, 2)
GOOD = matrix({(("a", "1"),): {3000: 1.0, 3300: 2.0}})


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.001)


def client(server: FakeServer, **settings: object) -> Prometheus:
    given = {"url": server.url, "timeout_seconds": 2.0, **settings}
    return Prometheus(PrometheusSettings.model_validate(given))


def test_it_asks_as_agreed(fake_server: FakeServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-1\n")
    fake_server.respond = lambda path, form: (200, GOOD)
    with client(fake_server, bearer_token_file=token) as prometheus:
        answer = prometheus.query_range("m", GRID)
        token.write_text("secret-2\n")  # rotated
        prometheus.query_range("m", GRID)
    assert answer.values.tolist() == [[1.0, 2.0]]
    [path, form] = fake_server.asked[0]
    assert path == "/api/v1/query_range"
    assert form == {"query": "m", "start": "3000", "end": "3300", "step": "300", "timeout": "2s"}
    assert fake_server.headers[0]["Accept-Encoding"] == "identity"
    sent = [headers["Authorization"] for headers in fake_server.headers]
    assert sent == ["Bearer secret-1", "Bearer secret-2"]


@pytest.mark.parametrize("status", [503, 502, 429])
def test_what_passes_is_asked_again(fake_server: FakeServer, status: int) -> None:
    answers = [refused(status, "busy"), refused(status, "busy"), (200, GOOD)]
    fake_server.respond = lambda path, form: answers.pop(0)
    with client(fake_server, attempts=3) as prometheus:
        assert len(prometheus.query_range("m", GRID).labels) == 1
    assert len(fake_server.asked) == 3


def test_attempts_end(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: refused(503, "query timed out", "timeout")
    with (
        client(fake_server, attempts=3) as prometheus,
        pytest.raises(ServerUnavailableError, match="503: query timed out"),
    ):
        prometheus.query_range("m", GRID)
    assert len(fake_server.asked) == 3


@pytest.mark.parametrize(("status", "reason"), [(422, "refused"), (400, "bad_query")])
def test_refusals_keep_their_words_and_are_not_asked_again(
    fake_server: FakeServer, status: int, reason: str
) -> None:
    words = "query processing would load too many samples into memory in query execution"
    fake_server.respond = lambda path, form: refused(status, words)
    with client(fake_server) as prometheus, pytest.raises(QueryError) as caught:
        prometheus.query_range("m{", GRID)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert "set shard_by" in str(caught.value)
    assert len(fake_server.asked) == 1


def test_nobody_there_and_nobody_answering(fake_server: FakeServer) -> None:
    with FakeServer() as gone:
        pass
    with client(gone, attempts=2) as prometheus, pytest.raises(ServerUnavailableError):
        prometheus.server_time()

    def sleep(path: str, form: dict[str, str]) -> tuple[int, bytes]:
        time.sleep(0.3)
        return 200, GOOD

    fake_server.respond = sleep
    with (
        client(fake_server, timeout_seconds=0.05, attempts=1) as prometheus,
        pytest.raises(DeadlineExceededError, match="timeout_seconds"),
    ):
        prometheus.query_range("m", GRID)


def test_a_connection_cut_in_the_answer_is_asked_again(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (200, GOOD)
    fake_server.cut = True
    with client(fake_server, attempts=2) as prometheus, pytest.raises(ServerUnavailableError):
        prometheus.query_range("m", GRID)
    assert len(fake_server.asked) == 2


def test_no_access_and_no_json(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (401, b"Unauthorized")
    with client(fake_server) as prometheus, pytest.raises(ServerAnswerError, match="bearer_token"):
        prometheus.query_range("m", GRID)
    fake_server.respond = lambda path, form: (200, b"<html>a proxy's page</html>")
    with client(fake_server) as prometheus, pytest.raises(ServerAnswerError, match="expected JSON"):
        prometheus.query_range("m", GRID)


def test_files_that_are_not_there(fake_server: FakeServer, tmp_path: Path) -> None:
    with (
        client(fake_server, bearer_token_file=tmp_path / "none") as prometheus,
        pytest.raises(ConfigError, match="bearer_token_file"),
    ):
        prometheus.query_range("m", GRID)
    with pytest.raises(ConfigError, match="ca_file"):
        client(fake_server, ca_file=tmp_path / "none")


@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_clock_skew(fake_server: FakeServer, kind: str) -> None:
    def respond(path: str, form: dict[str, str]) -> tuple[int, bytes]:
        pair = [time.time() + 60, str(time.time() + 60)]
        result = pair if kind == "scalar" else [{"metric": {}, "value": pair}]
        return 200, success({"resultType": kind, "result": result})

    fake_server.respond = respond
    with client(fake_server) as prometheus:
        told = prometheus.server_time()
    assert told.skew_seconds == pytest.approx(60, abs=0.5)
    assert told.now_seconds == pytest.approx(time.time() + 60, abs=1)


@pytest.mark.parametrize("said_after_seconds", [0.0, 0.5])
def test_an_answer_long_on_its_way_is_no_skew(
    fake_server: FakeServer, said_after_seconds: float
) -> None:
    def respond(path: str, form: dict[str, str]) -> tuple[int, bytes]:
        time.sleep(said_after_seconds)
        pair = [time.time(), str(time.time())]
        time.sleep(0.5 - said_after_seconds)
        return 200, success({"resultType": "scalar", "result": pair})

    fake_server.respond = respond
    with client(fake_server) as prometheus:
        assert prometheus.server_time().skew_seconds == pytest.approx(0.0, abs=0.01)


def test_a_stop_ends_the_waiting(fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 30.0)
    fake_server.respond = lambda path, form: refused(503, "busy")
    stop = threading.Event()
    settings = PrometheusSettings(url=fake_server.url, attempts=5)
    with Prometheus(settings, stop) as prometheus:
        threading.Timer(0.1, stop.set).start()
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError):
            prometheus.server_time()
    assert time.monotonic() - began < 10
