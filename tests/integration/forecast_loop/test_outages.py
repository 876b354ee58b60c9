"""Servers that go, hang and come back, and a loop that is told to stop meanwhile."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer
from services.forecast_loop.config import load_config
from services.forecast_loop.loop import ForecastLoop
from tests.fixtures.loop_process import (
    SERIES,
    forecasts,
    history,
    loop_command,
    own,
    values,
)
from tests.fixtures.prometheus_stack import FaultyProxy, Prometheus, free_port, wait_until
from tests.integration.forecast_loop.conftest import WriteConfig


def test_prometheus_goes_and_comes_back(
    write_config: WriteConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Prometheus(tmp_path / "prometheus")
    now = time.time()
    server.backfill(history(now))
    with server:
        loop = ForecastLoop(load_config(write_config(server.url)))
        assert loop.cycle(now - 1500) == "ok"
        server.kill()
        assert loop.cycle(now - 1200) == "failed"
        page = loop.exposition.current().body
        assert len(forecasts(page)) == len(SERIES)  # 300 s old: still good
        assert own(page, "query_errors_total", metric="quota_group_use_ratio",
                   reason="unavailable") == 1.0  # fmt: skip
        assert own(page, "series", metric="quota_group_use_ratio", state="read") == 0.0
        assert loop.cycle(now - 300) == "failed"
        page = loop.exposition.current().body
        assert forecasts(page) == {}  # 1200 s: older than three intervals
        assert loop.not_ready() is not None
        server.start()
        assert loop.cycle(now) == "ok"
        store = loop._states[0].store
        assert store is not None
        # The points of the outage were read afterwards: no gap is left.
        rows = [row for key in SERIES if (row := store.row(key)) is not None]
        assert not math.isnan(store.values[rows].sum())
        page = loop.exposition.current().body
        assert len(forecasts(page)) == len(SERIES)
        loop.close()
    assert "cannot be reached" in caplog.text


def test_triton_goes_and_comes_back(
    prometheus: Prometheus, triton: EmbeddedServer, write_config: WriteConfig
) -> None:
    loop = ForecastLoop(load_config(write_config(prometheus.url)))
    now = time.time()
    assert loop.cycle(now - 900) == "ok"
    triton.stop()
    try:
        assert loop.cycle(now - 600) == "failed"
        page = loop.exposition.current().body
        assert len(forecasts(page)) == len(SERIES)
    finally:
        triton.start()
    assert loop.cycle(now) == "ok"
    page = loop.exposition.current().body
    metric = "quota_group_use_ratio"
    assert own(page, "query_errors_total", metric=metric, reason="unavailable") == 1.0
    made = [v for (name, _), v in values(page).items() if name == "ai_forecast_timestamp_seconds"]
    assert made == pytest.approx([now] * len(SERIES) * 2, abs=0.01)
    loop.close()


@pytest.mark.parametrize("hangs", [False, True], ids=["between cycles", "in a hanging cycle"])
def test_sigterm_drains(
    hangs: bool,
    prometheus: Prometheus,
    write_config: WriteConfig,
    tmp_path: Path,
    repository_root: Path,
) -> None:
    port = free_port()
    config = write_config(prometheus.url, interval="1s" if hangs else "5m")
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    process = subprocess.Popen(
        loop_command(config), cwd=repository_root, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: _is_ready(port), seconds=30, what="the loop is ready")
        with prometheus.paused() if hangs else contextlib.nullcontext():
            time.sleep(1.5 if hangs else 0.0)  # the next cycle has begun to wait
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
    finally:
        process.kill()
        _, said = process.communicate()
    assert code == 0, said
    assert "SIGTERM: draining" in said
    assert ("Prometheus: no answer in time" in said) == hangs
    assert (tmp_path / "state.npz").is_file()


def test_a_cycle_that_does_not_end_is_abandoned(
    prometheus: Prometheus, write_config: WriteConfig, repository_root: Path
) -> None:
    """Prometheus tells the time, but a read never ends; its timeout is far away."""
    reads, release = threading.Event(), threading.Event()

    def fault(path: str) -> None:
        if "query_range" in path:
            reads.set()
            release.wait(60)

    with FaultyProxy(prometheus.url) as proxy:
        proxy.fault = fault
        config = write_config(proxy.url)
        text = config.read_text().replace("timeout_seconds = 5", "timeout_seconds = 100")
        config.write_text(text)
        process = subprocess.Popen(
            loop_command(config), cwd=repository_root, stderr=subprocess.PIPE, text=True
        )
        try:
            assert reads.wait(30)
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
        finally:
            release.set()
            process.kill()
            _, said = process.communicate()
    assert code == 0, said
    assert "a cycle was abandoned" in said


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
