"""A timeout of a whole request, against servers that trickle."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from services.bounded_http import bounded_client
from tests.fixtures.endpoints import Endpoint
from tests.fixtures.fault_proxy import FaultProxy


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with Endpoint(lambda *_: (200, b"x" * 2000)) as endpoint, FaultProxy(endpoint.target) as found:
        found.bytes_per_second = 500
        yield found


def seconds(ask: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(httpx.TimeoutException):
        ask()
    return time.monotonic() - began


def test_a_trickling_answer_ends_in_time_and_the_next_one_is_whole(proxy: FaultProxy) -> None:
    with bounded_client(1.0, base_url=f"http://{proxy.address}") as client:
        assert len(client.get("/").content) == 2000
        with proxy.lost("slow"):
            assert 0.9 < seconds(lambda: client.get("/")) < 3.0
        assert len(client.get("/").content) == 2000


def test_httpx_alone_would_wait_for_each_byte(proxy: FaultProxy) -> None:
    with (
        httpx.Client(base_url=f"http://{proxy.address}", timeout=1.0, trust_env=False) as client,
        proxy.lost("slow"),
    ):
        began = time.monotonic()
        assert len(client.get("/").content) == 2000
        assert time.monotonic() - began > 2.0


def test_a_large_request_that_is_taken_slowly_ends_in_time(proxy: FaultProxy) -> None:
    with (
        bounded_client(1.0, base_url=f"http://{proxy.address}") as client,
        proxy.lost("slow"),
    ):
        assert seconds(lambda: client.post("/", content=b"x" * (32 << 20))) < 3.0


def test_each_thread_has_a_time_of_its_own(proxy: FaultProxy) -> None:
    with bounded_client(1.5, base_url=f"http://{proxy.address}") as client:
        ended: list[str] = []

        def ask(after: float) -> None:
            time.sleep(after)
            with contextlib.suppress(httpx.TimeoutException):
                client.get("/")
                ended.append("whole")

        threads = [threading.Thread(target=ask, args=(after,)) for after in (0.0, 1.2)]
        with proxy.lost("black_hole"):
            threads[0].start()
            time.sleep(0.5)
        threads[1].start()
        for thread in threads:
            thread.join(10)
        assert ended == ["whole"]
