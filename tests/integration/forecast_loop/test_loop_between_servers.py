"""The loop between a real Prometheus, a real tritonserver and a real Pushgateway."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedded_triton import EmbeddedServer
from services.forecast_loop.config import load_config
from services.forecast_loop.loop import ForecastLoop
from services.forecast_loop.server import MetricsServer
from tests.fixtures.prometheus_stack import (
    Prometheus,
    Pushgateway,
    free_port,
    program,
    samples,
    wait_until,
)
from tests.integration.forecast_loop.conftest import QUOTA, WriteConfig, loop_command, run_loop

POINTS = 2 * 288
SERIES = [(cluster, group) for cluster in ("a", 'b"\\x') for group in ("train", "推理")]
NEWEST = {("a", "train"): 0.5, ("a", "推理"): 0.6, ('b"\\x', "train"): 0.7, ('b"\\x', "推理"): 0.8}


def history(now: float) -> Iterator[str]:
    """Two days of a daily wave that ends at each series' NEWEST; beside it a counter."""
    for (cluster, group), newest in NEWEST.items():
        wave = [
            newest + 0.05 * math.sin(2 * math.pi * (i + 1 - POINTS) / 288) for i in range(POINTS)
        ]
        labels = {"clu_name": cluster, "group": group, "instance": "10.0.0.1:9100"}
        yield from samples("quota_group_use_ratio", labels, wave, end=now)
    labels = {"instance": "10.0.0.1:9100"}
    yield from samples("requests_total", labels, range(POINTS), end=now)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    server.backfill(history(time.time()))
    with server:
        yield server


def values(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, sorted labels) → value of a page."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def forecasts(page: bytes) -> dict[tuple[str, str], float]:
    """(clu_name, group) → the 12h forecast."""
    return {
        (dict(labels)["clu_name"], dict(labels)["group"]): value
        for (name, labels), value in values(page).items()
        if name == "ai_forecast_quota_group_use_ratio" and dict(labels)["horizon"] == "12h"
    }


def own(page: bytes, name: str, **labels: str) -> float:
    found = values(page).get((f"ai_forecast_loop_{name}", tuple(sorted(labels.items()))))
    return math.nan if found is None else found


def test_one_cycle_reads_forecasts_and_exposes(
    prometheus: Prometheus, write_config: WriteConfig, tmp_path: Path
) -> None:
    loop = ForecastLoop(load_config(write_config(prometheus.url)))
    before = time.time()
    assert loop.cycle() == "ok", loop.first_error
    page = loop.exposition.current().body
    # The stand-in repeats the newest value: it must be that of the grid's end, of each series.
    assert forecasts(page) == pytest.approx(NEWEST, abs=0.002)
    found = values(page)
    made = [v for (name, _), v in found.items() if name == "ai_forecast_timestamp_seconds"]
    assert len(made) == len(SERIES) * 2
    assert all(before - 1 <= value <= time.time() + 1 for value in made)
    metric = "quota_group_use_ratio"
    for state, count in {"read": 4.0, "forecast": 4.0, "failed": 0.0}.items():
        assert own(page, "series", metric=metric, state=state) == count
    # A day of 5-minute steps: the stand-in answers as its second expert.
    assert own(page, "fallback_ratio", metric=metric, source="seasonal") == 1.0
    assert own(page, "fallback_ratio", metric=metric, source="lstm") == 0.0
    assert 0 <= own(page, "lag_seconds", metric=metric) < 300
    assert own(page, "cycles_total", result="ok") == 1.0
    check = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=30
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert (tmp_path / "state.npz").is_file()
    loop.close()
