"""/v1/forecast/query against a real Prometheus: its series, its words, its predict_linear."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import free_port
from tests.fixtures.gateway_process import gateway_process
from tests.fixtures.prometheus_stack import Prometheus, samples

STEP_SECONDS = 300


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    # On the grid of the step, so that what is read is what was written.
    end = time.time() // STEP_SECONDS * STEP_SECONDS
    wave = [float(i) + 3 * (i % 5) for i in range(100)]
    server.backfill(
        line
        for node in range(30)
        for line in samples("load", {"node": f"n{node}"}, [v + node for v in wave], end=end)
    )
    with server:
        yield server


@pytest.fixture(scope="module")
def ask(
    triton: EmbeddedServer, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    words = ("metric_forecast", "--no-tokens", "--port=0", f"--prometheus=main={prometheus.url}")
    words += (f"--prometheus=away=http://127.0.0.1:{free_port()}",)
    folder: Path = tmp_path_factory.mktemp("query_gateway")
    with gateway_process(folder, f"grpc://{triton.grpc_url}", *words) as gateway:

        def post(**body: Any) -> httpx.Response:
            url = f"{gateway.urls['metric_forecast']}/v1/forecast/query"
            return httpx.post(url, json=body, timeout=60, trust_env=False)

        yield post


def test_series_with_history_forecast_and_straight_line(ask: Any, prometheus: Prometheus) -> None:
    told = ask(query='load{node=~"n[01]"}', preset="12h", horizons=["1h", "12h"]).json()
    assert [row["labels"]["node"] for row in told["results"]] == ["n0", "n1"]
    first = told["results"][0]
    moment, newest = first["history"][-1]
    assert len(first["history"]) >= 99
    assert told["history"] == first["history"]
    # The stand-in's forecast is the newest value.
    assert first["median"] == [newest, newest]
    assert told["horizon_seconds"] == [3600.0, 43200.0]
    for span in (3600.0, 43200.0):
        question = f'predict_linear(load{{node="n0"}}[6h], {span:g})'
        [theirs] = prometheus.query(question, at=moment)
        line = dict(map(tuple, first["predict_linear"]))
        assert line[moment + span] == pytest.approx(float(theirs["value"][1]), rel=1e-4)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": "load{"}, 422, "refuses"),
        ({"query": "no_such_metric"}, 422, "gives nothing"),
        ({"query": "load"}, 422, "too many series"),
        ({"query": "load", "prometheus": "other"}, 422, "no such Prometheus"),
        ({"query": "load", "prometheus": "http://169.254.169.254"}, 422, "no such Prometheus"),
        ({"query": 'load{node="n0"}', "prometheus": "away"}, 503, "cannot be reached"),
    ],
)
def test_what_cannot_be_forecast_is_said(
    ask: Any, body: dict[str, str], status: int, words: str
) -> None:
    answer = ask(**body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "127.0.0.1" not in answer.text
