"""kill -9, a server that is away, a queue that is full: nothing acknowledged is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import Webhook, wait_until
from tests.fixtures.pipeline_process import PipelineProcess
from tests.fixtures.prometheus_stack import Alertmanager
from tests.fixtures.toy_model import LINES


@pytest.fixture(scope="module")
def abnormal(triton: EmbeddedServer) -> str:
    with LogAnomalyClient(f"grpc://{triton.grpc_url}") as client:
        verdicts = client.classify(LINES)
    return next(t for t, v in zip(LINES, verdicts, strict=True) if v.label == "anomaly")


@pytest.fixture
def pipeline(triton: EmbeddedServer, tmp_path: Path) -> Iterator[PipelineProcess]:
    with PipelineProcess(tmp_path / "pipeline", triton.grpc_url) as process:
        yield process


def told(pipeline: PipelineProcess) -> list[str]:
    """Messages of complete lines, with repeats."""
    if not pipeline.anomalies.is_file():
        return []
    text = pipeline.anomalies.read_text("utf-8", "replace")
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line)["message"])
        except ValueError:
            continue  # half-written by the process that was killed
    return found


def test_kill_9_under_load_loses_nothing(pipeline: PipelineProcess, abnormal: str) -> None:
    """Killed four times while it acknowledges; each line is told at least once."""
    acknowledged: list[str] = []
    stop = threading.Event()

    def ship() -> None:
        number = 0
        while not stop.is_set():
            # The texts differ, their masked text is one, and the model calls it abnormal.
            lines = [f"{abnormal} {number + offset:08d}" for offset in range(50)]
            body = "".join(f'{{"index":{{}}}}\n{{"message":"{line}"}}\n' for line in lines)
            try:
                if pipeline.bulk(body.encode()).status_code == 200:
                    acknowledged.extend(lines)
            except httpx.HTTPError:
                stop.wait(0.05)
            number += 50

    shipper = threading.Thread(target=ship)
    shipper.start()
    for _ in range(4):
        before = len(acknowledged)
        wait_until(lambda before=before: len(acknowledged) >= before + 1000, what="load")
        pipeline.kill()
        pipeline.start()
    stop.set()
    shipper.join()
    wait_until(
        lambda: pipeline.metric("presage_log_backlog_bytes") == 0 and pipeline.delivered() > 0,
        seconds=60,
        what="an empty backlog",
    )
    seen = told(pipeline)
    assert set(acknowledged) <= set(seen)
    assert len(seen) < 2 * len(acknowledged)
    # The first time that each line is told, they are in the order of their arrival.
    kept = set(acknowledged)
    first = list(dict.fromkeys(line for line in seen if line in kept))
    assert first == sorted(first)


def test_the_server_may_be_away(own_triton: EmbeddedServer, tmp_path: Path, abnormal: str) -> None:
    """Acknowledged while nobody classifies; delivered when somebody does again."""
    with PipelineProcess(tmp_path / "pipeline", own_triton.grpc_url) as pipeline:
        own_triton.unload("log_anomaly")
        body = f'{{"index":{{}}}}\n{{"message":"{abnormal}"}}\n'.encode() * 20
        assert pipeline.bulk(body).status_code == 200
        wait_until(
            lambda: pipeline.metric("presage_log_classifier_errors_total") > 0,
            seconds=30,
            what="trouble that is told",
        )
        assert httpx.get(pipeline.url + "/readyz", trust_env=False).status_code == 503
        own_triton.load("log_anomaly")
        pipeline.wait_delivered(20)
        assert told(pipeline) == [abnormal] * 20
        assert httpx.get(pipeline.url + "/readyz", trust_env=False).status_code == 200


def test_a_full_queue_is_429_and_drains(
    own_triton: EmbeddedServer, tmp_path: Path, abnormal: str
) -> None:
    flags = ["--spool-limit-mb", "1"]
    with PipelineProcess(tmp_path / "pipeline", own_triton.grpc_url, *flags) as pipeline:
        own_triton.unload("log_anomaly")
        body = f'{{"index":{{}}}}\n{{"message":"{abnormal}"}}\n'.encode() * 1000
        accepted = 0
        for _ in range(100):
            answer = pipeline.bulk(body)
            if answer.status_code == 429:
                break
            accepted += 1000
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["type"] == "es_rejected_execution_exception"
        own_triton.load("log_anomaly")
        pipeline.wait_delivered(accepted)
        assert pipeline.bulk(body).status_code == 200
        pipeline.wait_delivered(accepted + 1000)
        assert len(told(pipeline)) == accepted + 1000


def test_sigterm_delivers_what_it_took(pipeline: PipelineProcess, abnormal: str) -> None:
    body = f'{{"index":{{}}}}\n{{"message":"{abnormal}"}}\n'.encode() * 5000
    assert pipeline.bulk(body).status_code == 200
    assert pipeline.stop() == 0
    assert told(pipeline) == [abnormal] * 5000


def test_a_storm_is_one_alert(triton: EmbeddedServer, tmp_path: Path, abnormal: str) -> None:
    with (
        Webhook() as webhook,
        Alertmanager(tmp_path / "alertmanager", webhook=webhook.url) as alertmanager,
        PipelineProcess(
            tmp_path / "pipeline", triton.grpc_url, "--alertmanager", alertmanager.url
        ) as pipeline,
    ):
        for start in range(0, 3000, 500):
            body = "".join(
                f'{{"index":{{"_index":"host{n % 3}"}}}}\n{{"message":"{abnormal}"}}\n'
                for n in range(start, start + 500)
            )
            assert pipeline.bulk(body.encode()).status_code == 200
        pipeline.wait_delivered(3000)
        alert = webhook.wait_for("LogAnomaly", seconds=30)
        assert alert["annotations"]["example"] == abnormal
        active = httpx.get(alertmanager.url + "/api/v2/alerts", trust_env=False).json()
        assert len(active) == 1
        assert active[0]["labels"]["template"] == pipeline.top()[0]["id"]
