"""The log pipeline without its server, Elasticsearch or Alertmanager: each line that was
acknowledged is told once, with the answer of an undisturbed run.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import Endpoint, Webhook, wait_until
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.pipeline_process import PipelineProcess
from tests.fixtures.prometheus_stack import Alertmanager
from tests.fixtures.steady_asker import Asked, SteadyAsker, size_of
from tests.fixtures.toy_model import LINES
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import (
    LONG_SECONDS,
    SHORT_SECONDS,
    WAYS,
    MortalServer,
    long,
)

LINES_A_REQUEST = 20
ACKNOWLEDGED_SECONDS = 2.0
RECOVERY_SECONDS = 8.0
# A question to the server that the network forgot is asked again after its ping's time.
FORGOTTEN_SECONDS = 25.0


def lines_of(number: int) -> list[str]:
    """Their masked texts are those of LINES: what is abnormal is known beforehand."""
    return [
        f"{LINES[(number + row) % len(LINES)]} {number:06d}{row:02d}"
        for row in range(LINES_A_REQUEST)
    ]


class Shipper:
    """Ships by ``_bulk``; knows what each line must be told as."""

    def __init__(self, pipeline: PipelineProcess, server: EmbeddedServer) -> None:
        self.pipeline = pipeline
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=8)
        self.http = httpx.Client(base_url=pipeline.url, timeout=60, limits=limits, trust_env=False)
        self._server = server

    def ask(self, number: int) -> httpx.Response:
        body = "".join(
            f'{{"index":{{}}}}\n{json.dumps({"message": line}, ensure_ascii=False)}\n'
            for line in lines_of(number)
        )
        kind = {"Content-Type": "application/x-ndjson"}
        return self.http.post("/_bulk", content=body.encode(), headers=kind)

    def abnormal(self, asked: list[Asked]) -> list[str]:
        """Of what was acknowledged, which was everything, at once."""
        for one in asked:
            assert one.error is None, one
            assert one.answer.status_code == 200, one.answer.text
            assert not one.answer.json()["errors"]
            assert one.seconds < ACKNOWLEDGED_SECONDS * 2, one
        lines = [line for one in asked for line in lines_of(one.number)]
        with LogAnomalyClient(f"grpc://{self._server.grpc_url}") as client:
            verdicts = client.classify(lines)
        found = [
            line
            for line, verdict in zip(lines, verdicts, strict=True)
            if verdict.label == "anomaly"
        ]
        assert 0 < len(found) < len(lines)
        return found

    def told(self) -> list[dict[str, Any]]:
        if not self.pipeline.anomalies.is_file():
            return []
        return [json.loads(line) for line in self.pipeline.anomalies.read_text().splitlines()]

    def wait_delivered(self, asked: list[Asked], seconds: float) -> float:
        began = time.monotonic()
        self.pipeline.wait_delivered(len(asked) * LINES_A_REQUEST, seconds)
        took = time.monotonic() - began
        assert self.pipeline.delivered() == len(asked) * LINES_A_REQUEST
        return took

    def check_told(self, asked: list[Asked]) -> None:
        """Nothing is missing, nothing comes twice, and nothing is told that is normal."""
        told = self.told()
        assert Counter(row["message"] for row in told) == Counter(self.abnormal(asked))
        assert {row["model_version"] for row in told} == {"1"}


@pytest.mark.promise(
    fault="log pipeline: its server's network is lost",
    promise="every line acknowledged at once, told once and rightly when it is back; not ready",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [("refuse", SHORT_SECONDS), *(long(way, LONG_SECONDS) for way in (*WAYS, "flap"))],
)
def test_server_lost(
    way: Any,
    seconds: float,
    tiny_server: EmbeddedServer,
    triton_proxy: FaultProxy,
    tmp_path: Path,
    promise: Promise,
) -> None:
    with PipelineProcess(tmp_path, triton_proxy.address) as pipeline:
        shipper = Shipper(pipeline, tiny_server)
        assert shipper.ask(10_000).status_code == 200
        pipeline.wait_delivered(LINES_A_REQUEST)
        with SteadyAsker(shipper.ask) as asker:
            if way == "flap":
                triton_proxy.flap(seconds)
            else:
                triton_proxy.set(way)
                asker.burst(40)
                time.sleep(seconds)
                if way == "refuse":
                    wait_until(lambda: pipeline.http.get("/readyz").status_code == 503, seconds=10)
                triton_proxy.set("pass")
        asked = [*asker.asked, Asked(10_000, 0.0, 0.0, asker.asked[0].answer)]
        took = shipper.wait_delivered(asked, 120)
        shipper.check_told(asked)
        assert pipeline.http.get("/readyz").status_code == 200
        promise.measured(
            f"{way} {seconds:g} s: {len(asked)} requests; delivered {took:.1f} s after"
        )
        limit = FORGOTTEN_SECONDS if way == "black_hole" else RECOVERY_SECONDS
        assert took < promise.limit_seconds(limit)


@pytest.mark.promise(
    fault="log pipeline: kill -9 of tritonserver, back on the same ports",
    promise="every line told once and rightly",
)
@pytest.mark.slow
def test_server_killed(
    tiny_server: EmbeddedServer, mortal_server: MortalServer, tmp_path: Path, promise: Promise
) -> None:
    with PipelineProcess(tmp_path, mortal_server.address) as pipeline:
        shipper = Shipper(pipeline, tiny_server)
        with SteadyAsker(shipper.ask) as asker:
            time.sleep(2.0)
            mortal_server.kill()
            asker.burst(40)
            time.sleep(LONG_SECONDS)
            mortal_server.start()
        took = shipper.wait_delivered(asker.asked, 60)
        shipper.check_told(asker.asked)
        promise.measured(f"{len(asker.asked)} requests; delivered {took:.1f} s after")
        assert took < promise.limit_seconds(RECOVERY_SECONDS)


class StandInElasticsearch(Endpoint):
    """Takes ``_bulk`` and keeps each document once by its id, as Elasticsearch does."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        super().__init__(self._taken)

    def _taken(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        rows = [json.loads(line) for line in body.splitlines() if line]
        items = []
        with self._lock:
            for action, document in zip(rows[::2], rows[1::2], strict=True):
                name = action["create"]["_id"]
                status = 409 if name in self.documents else 201
                self.documents.setdefault(name, document)
                items.append({"create": {"status": status}})
        return 200, json.dumps({"errors": False, "items": items}).encode()


@pytest.mark.promise(
    fault="log pipeline: Elasticsearch's network is lost",
    promise="every anomaly is there once when it is back",
)
@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, "flap"])
def test_stand_in_elasticsearch_lost(
    way: Any, tiny_server: EmbeddedServer, tmp_path: Path, promise: Promise
) -> None:
    with StandInElasticsearch() as elasticsearch, FaultProxy(elasticsearch.target) as proxy:
        flags = ("--elasticsearch", f"http://{proxy.address}")
        with PipelineProcess(tmp_path, tiny_server.grpc_url, *flags) as pipeline:
            shipper = Shipper(pipeline, tiny_server)
            with SteadyAsker(shipper.ask) as asker:
                time.sleep(1.0)
                if way == "flap":
                    proxy.flap(LONG_SECONDS)
                else:
                    asker.burst(20)
                    proxy.cut(way, LONG_SECONDS)
            took = shipper.wait_delivered(asker.asked, 120)
            # An answer that was lost is asked for again: then the file has lines twice.
            found = Counter(row["message"] for row in elasticsearch.documents.values())
            assert found == Counter(shipper.abnormal(asker.asked))
            promise.measured(f"{way} 30 s: {sum(found.values())} anomalies, {took:.1f} s after")
            assert took < promise.limit_seconds(FORGOTTEN_SECONDS + 10)


@pytest.mark.promise(
    fault="log pipeline: Alertmanager's network is lost",
    promise="lines are delivered as if nothing were; the alert comes when it is back",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [
        long("black_hole", 6.0),
        *(long(way, LONG_SECONDS) for way in ("refuse", "slow", "black_hole")),
    ],
)
def test_alertmanager_lost(
    way: Any, seconds: float, tiny_server: EmbeddedServer, tmp_path: Path, promise: Promise
) -> None:
    with (
        Webhook() as webhook,
        Alertmanager(tmp_path / "alertmanager", webhook=webhook.url) as alertmanager,
        FaultProxy(alertmanager.target) as proxy,
        PipelineProcess(
            tmp_path, tiny_server.grpc_url, "--alertmanager", f"http://{proxy.address}"
        ) as pipeline,
    ):
        shipper = Shipper(pipeline, tiny_server)
        proxy.bytes_per_second = 20
        with proxy.lost(way), SteadyAsker(shipper.ask) as asker:
            time.sleep(seconds)
        took = shipper.wait_delivered(asker.asked, 60)
        shipper.check_told(asker.asked)
        began = time.monotonic()
        webhook.wait_for("LogAnomaly", seconds=90)
        told = time.monotonic() - began
        promise.measured(f"{way} {seconds:g} s: delivered {took:.1f} s, alert {told:.0f} s after")
        # Asked for at most every 2, 4, 8 … 30 s, for 3 s each.
        assert took < promise.limit_seconds(4.0)


@pytest.mark.promise(
    fault="log pipeline: SIGTERM while its server says nothing",
    promise="ends within 20 s; the next start delivers everything",
)
@pytest.mark.slow
def test_sigterm_in_a_black_hole(
    tiny_server: EmbeddedServer, triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    with PipelineProcess(tmp_path, triton_proxy.address) as pipeline:
        shipper = Shipper(pipeline, tiny_server)
        triton_proxy.set("black_hole")
        with SteadyAsker(shipper.ask) as asker:
            time.sleep(3.0)
        began = time.monotonic()
        assert pipeline.stop() == 0, pipeline.log()
        took = time.monotonic() - began
        triton_proxy.set("pass")
        pipeline.start()
        shipper.wait_delivered(asker.asked, 60)
        shipper.check_told(asker.asked)
        promise.measured(
            f"ended {took:.1f} s after SIGTERM, {len(asker.asked)} requests told later"
        )
        assert took < promise.limit_seconds(20.0)


@pytest.mark.promise(
    fault="log pipeline: six outages in a row",
    promise="memory, descriptors and threads as before",
)
@pytest.mark.slow
def test_outages_in_a_row_cost_nothing(
    tiny_server: EmbeddedServer, triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    with PipelineProcess(tmp_path, triton_proxy.address) as pipeline:
        shipper = Shipper(pipeline, tiny_server)
        asked: list[Asked] = []
        sizes = []
        for way in ("black_hole", "refuse", "reset", "stall", "refuse", "black_hole"):
            with SteadyAsker(shipper.ask, _number=len(asked)) as asker:
                asker.burst(40)
                triton_proxy.cut(way, 5.0)  # type: ignore[arg-type]
            asked += asker.asked
            shipper.wait_delivered(asked, 90)
            time.sleep(11.0)  # idle workers of a burst end after ten seconds
            sizes.append(size_of(pipeline.pid))
        shipper.check_told(asked)
        first, last = sizes[0], sizes[-1]
        promise.measured(f"{first} after the first, {last} after the sixth")
        assert last.memory_bytes < first.memory_bytes * 1.15
        assert last.descriptors <= first.descriptors + 20
        assert last.threads <= first.threads + 8
