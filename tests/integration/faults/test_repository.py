"""Broken model files and a full disk: the old version serves on, and one message says why."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import LogAnomalyClient
from contract.errors import ServerError
from embedded_triton.http_control import HttpControl
from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, launched, wait_until
from tests.integration.faults.private_mounts import require_private_mounts, with_tmpfs
from tests.integration.faults.retrying_load import PATIENT, RetryingLoad

FAULT = "corrupt, truncated, missing model file; full disk during publish"
PROMISE = "old version serves on; one clear message"


@pytest.fixture(scope="module")
def own_server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(tiny_repository, folder / "repository")
    with launched(folder / "repository", folder / "run", repository_root) as running:
        yield running


def _damage(version: Path, how: str) -> str:
    """Damage a version folder; the file that a message must name."""
    model = version / "model.onnx"
    if how == "corrupt":
        data = bytearray(model.read_bytes())
        data[: len(data) // 2] = os.urandom(len(data) // 2)
        model.write_bytes(data)
    elif how == "truncated":
        os.truncate(model, model.stat().st_size // 2)
    else:
        model.unlink()
    return "model.onnx"


@pytest.mark.parametrize("how", ["corrupt", "truncated", "missing"])
@pytest.mark.promise(fault=FAULT, promise=PROMISE)
def test_a_broken_new_version_is_refused(
    how: str, own_server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    state = own_server.state
    control = HttpControl(state["http_url"])
    models = ["log_anomaly_classifier", "double"]
    urls = [f"grpc://{state['grpc_url']}"]
    messages = []
    with RetryingLoad(urls, expected_scores, callers=8) as load:
        for model in models:
            folder = own_server.repository / model
            shutil.copytree(folder / "1", folder / "2")
            file = _damage(folder / "2", how)
            with pytest.raises(ServerError) as refused:
                control.load(model)
            text = refused.value.got or ""
            assert file in text, text
            messages.append(" ".join(text.split()))
            shutil.rmtree(folder / "2")
    assert load.failures == {}
    assert load.wrong == 0
    assert own_server.ready, own_server.supervisor("/readyz")
    assert [own_server.restarts(model) for model in models] == [0.0, 0.0]
    told = messages[0].partition("TritonModelException: ")[2]
    promise.measured(
        f"{how}: version 1 answered {len(load.latencies):,} requests beside it, 0 failed;"
        f" “{told[:90]}…”"
    )


@pytest.mark.slow
@pytest.mark.promise(
    fault="tritonserver killed while the newest version of a model on disk is broken",
    promise="the other models are back, and the supervisor says which one is not",
)
def test_a_restart_over_a_broken_version_costs_only_that_model(
    tiny_repository: Path,
    expected_scores: dict[str, float],
    tmp_path: Path,
    repository_root: Path,
    promise: Promise,
) -> None:
    shutil.copytree(tiny_repository, tmp_path / "repository")
    with launched(tmp_path / "repository", tmp_path / "run", repository_root) as server:
        (tmp_path / "repository/double/1/model.onnx").write_bytes(b"not a model")
        pid = server.server_pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.server_pid != pid, 120, "the server is back")
        wait_until(lambda: server.supervisor("/readyz/log_anomaly")[0] == 200, 120, "the front")
        with LogAnomalyClient(f"grpc://{server.state['grpc_url']}", PATIENT) as client:
            line, score = next(iter(expected_scores.items()))
            [verdict] = client.classify([line])
        assert verdict.score == pytest.approx(score, abs=1e-4)
        code, text = server.supervisor("/readyz")
        assert code == 503
        assert text.startswith("double: ")
        assert server.process.poll() is None
    promise.measured(f"log_anomaly back; “{text.strip()[:110]}”")


@pytest.mark.slow
@pytest.mark.promise(fault=FAULT, promise=PROMISE)
def test_a_full_disk_during_publish_changes_nothing(
    tmp_path: Path, repository_root: Path, promise: Promise
) -> None:
    require_private_mounts()
    small = tmp_path / "small"
    small.mkdir()
    script = Path(__file__).with_name("publish_on_full_disk.py")
    result = subprocess.run(
        [*with_tmpfs(small, "4m"), sys.executable, script, small, tmp_path / "elsewhere"],
        cwd=repository_root,
        env=os.environ | {"PYTHONPATH": str(repository_root)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    promise.measured(f"full disk: {result.stdout.strip().splitlines()[-1][:160]}")
