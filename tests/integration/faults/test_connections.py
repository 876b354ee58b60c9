"""Clients that are slow, half-open or idle take nothing from the others."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, wait_until
from tests.integration.faults.retrying_load import RetryingLoad, percentile

IDLE = 2_000
SLOW = 50
CALLERS = 8


@contextmanager
def _burden(addresses: list[str]) -> Iterator[int]:
    """Idle connections, half a request on each of ``SLOW`` more; how many the server took."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, IDLE + SLOW + 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    held: list[socket.socket] = []
    try:
        for number in range(min(IDLE, wanted - 512)):
            held.append(_connect(addresses[number % len(addresses)]))
        for number in range(SLOW):
            slow = _connect(addresses[number % len(addresses)])
            slow.sendall(
                b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{"
            )
            held.append(slow)
        yield len(held)
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.promise(
    fault="slow or half-open clients, 2,000 idle connections", promise="others unaffected"
)
def test_idle_and_slow_connections_hurt_nobody(
    server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    state = server.state
    urls = [f"grpc://{state['grpc_url']}", f"http://{state['http_url']}"]
    restarts = server.restarts("tritonserver")

    def ask() -> RetryingLoad:
        with RetryingLoad(urls, expected_scores, callers=CALLERS) as load:
            began = time.monotonic()
            wait_until(lambda: load.answered_since(began) >= 400, 120, "400 answers")
        assert load.failures == {}
        assert load.wrong == 0
        return load

    ask()
    alone = percentile([taken for _, taken in ask().latencies], 0.5)
    with _burden([state["grpc_url"], state["http_url"]]) as held:
        beside = percentile([taken for _, taken in ask().latencies], 0.5)
        assert server.ready
        assert server.supervisor("/livez")[0] == 200
    promise.measured(
        f"{held:,} held connections: median {beside * 1000:.0f} ms beside"
        f" {alone * 1000:.0f} ms without, 0 failed, 0 wrong"
    )
    assert held >= 1_000
    # A busy machine moves a median by itself: only a multiple is the connections' doing.
    assert beside <= 0.05 + promise.limit_seconds(2) * alone
    assert server.restarts("tritonserver") == restarts
