"""Hours of service in small: a steady load, and nothing grows."""

from __future__ import annotations

import os
import time

import pytest

from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, memory_bytes
from tests.integration.faults.retrying_load import RetryingLoad, percentile

MINUTES_VARIABLE = "PRESAGE_FAULTS_SOAK_MINUTES"
MINUTES = float(os.environ.get(MINUTES_VARIABLE, "20"))
CALLERS = 8
SHARE = 0.7
SAMPLES = 20


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 600)
@pytest.mark.promise(fault="20-minute soak at 70%", promise="flat memory and latency")
def test_a_steady_load_leaves_everything_as_it_was(
    server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    restarts = server.restarts("tritonserver")
    urls = [f"grpc://{server.state['grpc_url']}", f"http://{server.state['http_url']}"]
    with RetryingLoad(urls, expected_scores, callers=CALLERS) as peak:
        time.sleep(10)
    busy = [taken for _, taken in peak.latencies]
    # Closed loop: a caller that waits this long after each answer asks at 70% of its peak.
    pause = sum(busy) / len(busy) * (1 / SHARE - 1)
    memory, medians = [], []
    with RetryingLoad(urls, expected_scores, callers=CALLERS, pause_seconds=pause) as load:
        for _ in range(SAMPLES):
            begin = len(load.latencies)
            time.sleep(MINUTES * 60 / SAMPLES)
            medians.append(percentile([taken for _, taken in load.latencies[begin:]], 0.5))
            memory.append(memory_bytes(server))
    quarter = SAMPLES // 4
    # The first quarter warms up; machines are shared, so latency is judged by medians of quarters.
    early = percentile(medians[quarter : 2 * quarter], 0.5)
    late = percentile(medians[-quarter:], 0.5)
    growth = memory[-1] / memory[quarter] - 1
    promise.measured(
        f"{MINUTES:g} min, {len(load.latencies):,} answers, 0 failed, 0 wrong; memory"
        f" {memory[quarter] / 2**20:.0f} → {memory[-1] / 2**20:.0f} MB ({growth:+.1%}); median"
        f" {early * 1000:.1f} → {late * 1000:.1f} ms"
    )
    assert load.failures == {}
    assert load.wrong == 0
    assert growth < 0.05
    assert late <= 1.5 * early + 0.005
    assert server.restarts("tritonserver") == restarts
