"""The pod's probe, as the manifest runs it, beside a real tritonserver."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from embedded_triton.http_control import HttpControl
from tests.fixtures import manifests
from tests.fixtures.endpoints import HOST, free_port, wait_until

CONFIG = """backend: "python"
max_batch_size: 4
input [{name: "x" data_type: TYPE_FP32 dims: [1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [1]}]
dynamic_batching { default_queue_policy { max_queue_size: 2 } }
instance_group [{count: 1}]
"""
MODEL = """import os, time
import triton_python_backend_utils as pb
class TritonPythonModel:
    def initialize(self, args):
        open(os.environ["PROBE_PID_FILE"], "w").write(str(os.getpid()))
    def execute(self, requests):
        time.sleep(float(open(os.environ["PROBE_SECONDS_FILE"]).read()))
        return [
            pb.InferenceResponse([pb.Tensor("y", pb.get_input_tensor_by_name(r, "x").as_numpy())])
            for r in requests
        ]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EmbeddedServer]:
    (folder / "models/slow/1").mkdir(parents=True)
    (folder / "models/slow/config.pbtxt").write_text(CONFIG)
    (folder / "models/slow/1/model.py").write_text(MODEL)
    (folder / "seconds").write_text("0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_PID_FILE", str(folder / "pid"))
        patch.setenv("PROBE_SECONDS_FILE", str(folder / "seconds"))
        settings = ServerSettings(
            folder / "models", http_port=0, grpc_port=0, metrics_port=0, run_folder=folder / "run"
        )
        with EmbeddedServer(settings) as running:
            yield running
            # A model process that was killed keeps an orderly end waiting.
            assert running.server_pid
            os.killpg(running.server_pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def words(folder: Path) -> list[str]:
    """The readiness probe of the rendered pod, and its tools where the pod has them."""
    documents = manifests.with_components(folder / "overlay", ["gpu"])
    (pod,) = (p for p in manifests.pods(documents) if p.name == "triton")
    manifests.write_tools(documents, pod, folder / "tools")
    shell, flag, script = pod.main["readinessProbe"]["exec"]["command"]
    assert (shell, flag) == ("sh", "-ec")
    return shlex.split(script.partition("exec ")[2])


def _probe(words: list[str], folder: Path, address: str, seconds: str = "8") -> int:
    replaced = {
        "--http=127.0.0.1:8000": f"--http={address}",
        "--seconds=8": f"--seconds={seconds}",
    }
    assert set(replaced) <= set(words)
    call = [replaced.get(word, word) for word in words]
    # Without site-packages, so without Presage: the image has neither.
    call[:1] = [sys.executable, "-S"]
    done = subprocess.run(
        call, cwd=folder / "tools", capture_output=True, text=True, check=False, timeout=60
    )
    print(done.stdout, done.stderr)
    return done.returncode


def _infer(server: EmbeddedServer) -> None:
    body = [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]
    try:
        HttpControl(server.http_url).infer("slow", body, timeout=60)
    except Exception as error:  # a full queue refuses, which is what is wanted
        print(error)


def test_a_model_that_answers_is_ready(
    server: EmbeddedServer, words: list[str], folder: Path
) -> None:
    assert _probe(words, folder, server.http_url) == 0


def test_triton_has_the_counters_that_the_hpa_scales_on(server: EmbeddedServer) -> None:
    page = httpx.get(f"http://{server.metrics_url}/metrics", trust_env=False).text
    there = set(re.findall(r"^(nv_\w+)\{", page, re.MULTILINE))
    queries = manifests.adapter_queries().values()
    asked = {name for query in queries for name in re.findall(r"nv_\w+", query)}
    assert len(asked) == 3
    assert asked <= there


@pytest.mark.parametrize(
    ("callers", "model_seconds", "probe_seconds"),
    [
        # Its queue is full: it refuses at once.
        (12, "0.4", "8"),
        # Its queue has room, and ours is answered later than the probe waits: others get theirs.
        (2, "1", "1.25"),
    ],
)
def test_a_busy_model_is_ready(
    server: EmbeddedServer,
    words: list[str],
    folder: Path,
    callers: int,
    model_seconds: str,
    probe_seconds: str,
) -> None:
    (folder / "seconds").write_text(model_seconds)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            _infer(server)

    threads = [threading.Thread(target=load) for _ in range(callers)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(3):
            assert _probe(words, folder, server.http_url, probe_seconds) == 0
    finally:
        stop.set()
        (folder / "seconds").write_text("0")
        for thread in threads:
            thread.join(60)


def test_a_stuck_model_is_not_ready(server: EmbeddedServer, words: list[str], folder: Path) -> None:
    (folder / "seconds").write_text("6")
    try:
        assert _probe(words, folder, server.http_url, "0.5") == 12
    finally:
        (folder / "seconds").write_text("0")
    wait_until(
        lambda: _probe(words, folder, server.http_url) == 0,
        seconds=30,
        what="well again",
        every=0.5,
    )


def test_a_dead_model_is_not_ready_whatever_triton_says(
    server: EmbeddedServer, words: list[str], folder: Path
) -> None:
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    wait_until(
        lambda: _probe(words, folder, server.http_url) == 12,
        seconds=30,
        what="not ready",
        every=0.5,
    )
    assert HttpControl(server.http_url).call("GET", "/v2/health/ready") is None
    # And the other way round: what the supervisor, or a new pod, does.
    server.unload("slow")
    server.load("slow")
    assert _probe(words, folder, server.http_url) == 0


def test_no_server_is_not_ready(words: list[str], folder: Path) -> None:
    assert _probe(words, folder, f"{HOST}:{free_port()}") == 12
