"""The real tritonserver behind EmbeddedServer: answers, batches, versions, lone errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton

from embedded_triton import EmbeddedServer
from embedded_triton.canary import ask_canary
from tests.integration.server.conftest import make_repository, settings_for, write_multiply


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, venv: Path) -> Iterator[EmbeddedServer]:
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    settings = settings_for(repository, tmp_path_factory.mktemp("run"), venv)
    with EmbeddedServer(settings) as running:
        yield running


def ask(server: EmbeddedServer, model: str, rows: np.ndarray, version: str = "") -> np.ndarray:
    with triton.InferenceServerClient(server.grpc_url) as client:
        kind = "INT64" if rows.dtype == np.int64 else "FP32"
        tensor = triton.InferInput("x", list(rows.shape), kind)
        tensor.set_data_from_numpy(rows)
        answer: np.ndarray = client.infer(model, [tensor], model_version=version).as_numpy("y")
        return answer


def test_every_model_answers_its_canary(server: EmbeddedServer) -> None:
    assert [model.name for model in server.models] == ["auto", "double", "lookup"]
    assert [ask_canary(server.control, model.name) for model in server.models] == [None] * 3


def test_two_versions_are_served_and_the_newest_by_default(server: EmbeddedServer) -> None:
    ones = np.ones((1, 4), dtype=np.float32)
    assert ask(server, "double", ones)[0, 0] == 20
    assert ask(server, "double", ones, "1")[0, 0] == 2


def test_a_config_without_tensors_is_completed_from_the_file(server: EmbeddedServer) -> None:
    assert ask(server, "auto", np.ones((2, 4), dtype=np.float32)).tolist() == [[3.0] * 4] * 2
    config = server.control.config("auto")
    assert config["input"][0]["dims"] in ([4], ["4"])


def test_concurrent_requests_are_batched_and_each_gets_its_own_answer(
    server: EmbeddedServer,
) -> None:
    rows = [np.full((1, 4), i, dtype=np.float32) for i in range(200)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda row: ask(server, "double", row), rows))
    for i, answer in enumerate(answers):
        assert answer.tolist() == [[20.0 * i] * 4]
    statistics = server.control.call("GET", "/v2/models/double/versions/2/stats")["model_stats"][0]
    assert statistics["inference_count"] > statistics["execution_count"], "nothing was batched"


def test_one_bad_request_fails_alone(server: EmbeddedServer) -> None:
    good, bad = np.zeros((1, 4), dtype=np.int64), np.full((1, 4), 99, dtype=np.int64)
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(ask, server, "lookup", bad if i % 8 == 3 else good) for i in range(64)]
    for i, job in enumerate(jobs):
        if i % 8 == 3:
            with pytest.raises(triton.InferenceServerException, match="onnxruntime"):
                job.result()
        else:
            assert job.result().tolist() == [[10.0] * 4]


def test_a_new_version_is_served_after_a_load_and_the_oldest_goes(server: EmbeddedServer) -> None:
    folder = server.settings.repository / "auto"
    write_multiply(folder / "2" / "model.onnx", 7.0)
    server.load("auto")
    ones = np.ones((1, 4), dtype=np.float32)
    deadline = time.monotonic() + 10
    while ask(server, "auto", ones)[0, 0] != 7 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask(server, "auto", ones)[0, 0] == 7
    server.unload("auto")
    deadline = time.monotonic() + 10
    while ask_canary(server.control, "auto") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask_canary(server.control, "auto") is not None


def test_listens_on_loopback_only(server: EmbeddedServer) -> None:
    for url in (server.http_url, server.grpc_url, server.metrics_url):
        assert url.startswith("127.0.0.1:")
    port = int(server.http_url.rsplit(":", 1)[1])
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_callers_connect_anew_and_no_request_fails(tmp_path: Path, venv: Path) -> None:
    """So that a caller finds the servers that came later behind the same name."""
    settings = settings_for(make_repository(tmp_path / "repository"), tmp_path / "run", venv)
    row = np.ones((1, 4), dtype=np.float32)
    with EmbeddedServer(replace(settings, grpc_connection_age_seconds=0.5)) as server:
        port = int(server.grpc_url.rpartition(":")[2])
        ends, deadline = set(), time.monotonic() + 4

        def keep_asking(client: triton.InferenceServerClient) -> None:
            while time.monotonic() < deadline:
                tensor = triton.InferInput("x", [1, 4], "FP32").set_data_from_numpy(row)
                assert client.infer("double", [tensor]).as_numpy("y")[0, 0] == 20

        with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(keep_asking, client) for _ in range(8)]
            while time.monotonic() < deadline:
                for end in psutil.Process().net_connections("tcp"):
                    if end.status == psutil.CONN_ESTABLISHED and end.raddr.port == port:
                        ends.add(end.laddr.port)
                time.sleep(0.05)
            for job in jobs:
                job.result()
    assert len(ends) >= 3
