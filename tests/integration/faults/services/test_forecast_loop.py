"""The forecast loop without Prometheus, its server or its outlets: its page is true, or empty."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import HOST, free_port, wait_until
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.loop_process import (
    CONFIG,
    NEWEST,
    QUOTA,
    SERIES,
    forecasts,
    history,
    loop_command,
    values,
)
from tests.fixtures.prometheus_stack import Prometheus, Pushgateway
from tests.fixtures.steady_asker import SteadyAsker, size_of
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import (
    LONG_SECONDS,
    SHORT_SECONDS,
    WAYS,
    long,
)

INTERVAL_SECONDS = 2
STALE_SECONDS = 3 * INTERVAL_SECONDS
DRAIN_SECONDS = 10.0
RECOVERY_SECONDS = 8.0
TIMESTAMP = "ai_forecast_timestamp_seconds"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """With a history that has just ended: its points are fresh for as long as a test takes."""
    server = Prometheus(tmp_path / "prometheus")
    server.backfill(history(time.time()))
    with server:
        yield server


@pytest.fixture
def prometheus_proxy(prometheus: Prometheus) -> Iterator[FaultProxy]:
    with FaultProxy(prometheus.target) as proxy:
        yield proxy


class Loop:
    """A loop as a process. ``read`` is a scrape: status, page and readiness at a moment."""

    def __init__(self, folder: Path, root: Path, prometheus: str, triton: str, loop: str) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        file = folder / "loop.toml"
        text = CONFIG.format(
            prometheus=f"http://{prometheus}",
            triton=triton,
            state=folder / "state.npz",
            loop=loop,
            queries=QUOTA,
            interval=f"{INTERVAL_SECONDS}s",
        )
        text = text.replace(f"{HOST}:0", f"{HOST}:{self.port}")
        file.write_text(text.replace("timeout_seconds = 5", "timeout_seconds = 2"))
        self._log = folder / "loop.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(loop_command(file), cwd=root, stderr=log)
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def read(self, _: int = 0) -> bytes:
        return self.http.get("/metrics").raise_for_status().content

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self) -> None:
        wait_until(self.is_ready, seconds=40, what=f"the loop is ready\n{self.log()}")

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-2000:]


def made(page: bytes) -> list[float]:
    return [value for (name, _), value in values(page).items() if name == TIMESTAMP]


def check(page: bytes, read_at: float) -> int:
    """Every forecast shown is the right one, and none is older than it may be; how many."""
    shown = forecasts(page)
    for series, value in shown.items():
        # The newest point on the grid may be the one before.
        assert math.isclose(value, NEWEST[series], abs_tol=0.003), (series, value)
    for moment in made(page):
        # A page is rendered once a second at least.
        assert read_at - moment < STALE_SECONDS + 2.0
        assert moment <= read_at + 0.5
    return len(shown)


@pytest.fixture
def start_loop(tmp_path: Path, repository_root: Path) -> Iterator[Callable[..., Loop]]:
    made: list[Loop] = []

    def start(prometheus: str, triton: str, loop: str = "") -> Loop:
        made.append(Loop(tmp_path, repository_root, prometheus, triton, loop))
        made[-1].wait_ready()
        return made[-1]

    yield start
    for loop in made:
        loop.process.kill()
        loop.process.wait()
        loop.http.close()


@pytest.mark.promise(
    fault="forecast loop: the network of Prometheus, or of its server, is lost",
    promise="right forecasts or none, none shown as fresh that is stale; ready again within 8 s",
)
@pytest.mark.parametrize(
    ("whose", "way", "seconds"),
    [
        ("both", "black_hole", SHORT_SECONDS),
        *(
            long(whose, way, LONG_SECONDS)
            for whose in ("prometheus", "triton")
            for way in (*WAYS, "flap")
        ),
        long("both", "refuse", LONG_SECONDS),
    ],
)
def test_network_lost(
    whose: str,
    way: Any,
    seconds: float,
    start_loop: Callable[..., Loop],
    prometheus_proxy: FaultProxy,
    triton_proxy: FaultProxy,
    promise: Promise,
) -> None:
    loop = start_loop(prometheus_proxy.address, triton_proxy.address)
    proxies = {"prometheus": [prometheus_proxy], "triton": [triton_proxy]}.get(
        whose, [prometheus_proxy, triton_proxy]
    )
    with SteadyAsker(lambda _: (loop.read(), time.time())) as asker:
        if way == "flap":
            proxies[0].flap(seconds)
        else:
            for proxy in proxies:
                proxy.set(way)
            time.sleep(seconds)
            if seconds > 20 and way != "slow":
                assert not loop.is_ready()
                assert forecasts(loop.read()) == {}
            for proxy in proxies:
                proxy.set("pass")
        ended = time.time()
        wait_until(
            lambda: any(moment > ended for moment in made(loop.read())),
            seconds=90,
            what=f"a forecast made after the outage\n{loop.log()}",
        )
        took = time.time() - ended
    counts = []
    for one in asker.asked:
        assert one.error is None, one
        counts.append(check(*one.answer))
    wait_until(loop.is_ready, seconds=10)
    assert check(loop.read(), time.time()) == len(SERIES)
    promise.measured(
        f"{whose} {way} {seconds:g} s: {len(counts)} scrapes, {counts.count(0)} of them empty; "
        f"back {took:.1f} s after"
    )
    assert took < promise.limit_seconds(RECOVERY_SECONDS)


@pytest.mark.promise(
    fault="forecast loop: Pushgateway's network is lost",
    promise="its own page stays fresh; Pushgateway has the newest when it is back",
)
@pytest.mark.slow
@pytest.mark.parametrize("way", ["refuse", "black_hole", "slow"])
def test_outlet_lost(
    way: Any,
    start_loop: Callable[..., Loop],
    prometheus: Prometheus,
    tiny_server: EmbeddedServer,
    tmp_path: Path,
    promise: Promise,
) -> None:
    with (
        Pushgateway(tmp_path / "pushgateway") as gateway,
        FaultProxy(gateway.target) as proxy,
    ):
        push = f'push_url = "http://{proxy.address}"'
        loop = start_loop(prometheus.target, tiny_server.grpc_url, push)
        with proxy.lost(way):
            end = time.time() + LONG_SECONDS
            worst = 0.0
            while time.time() < end:
                time.sleep(0.5)
                page = loop.read()
                assert check(page, time.time()) == len(SERIES)
                worst = max(worst, time.time() - min(made(page)))
        ended = time.time()

        def pushed() -> bool:
            page = httpx.get(f"{gateway.url}/metrics", trust_env=False).content
            return any(moment > ended for moment in made(page))

        wait_until(pushed, seconds=60, what="a push after the outage")
        took = time.time() - ended
        promise.measured(
            f"{way} 30 s: own page at most {worst:.1f} s old; pushed {took:.1f} s after"
        )
        assert took < promise.limit_seconds(RECOVERY_SECONDS)


@pytest.mark.promise(
    fault="forecast loop: SIGTERM while Prometheus and its server say nothing",
    promise="ends within 10 s, its state saved",
)
@pytest.mark.slow
@pytest.mark.parametrize("whose", ["prometheus", "triton"])
def test_sigterm_in_a_black_hole(
    whose: str,
    start_loop: Callable[..., Loop],
    prometheus_proxy: FaultProxy,
    triton_proxy: FaultProxy,
    tmp_path: Path,
    promise: Promise,
) -> None:
    loop = start_loop(prometheus_proxy.address, triton_proxy.address)
    (prometheus_proxy if whose == "prometheus" else triton_proxy).set("black_hole")
    time.sleep(INTERVAL_SECONDS + 1.0)
    began = time.monotonic()
    loop.process.send_signal(signal.SIGTERM)
    code = loop.process.wait(60)
    took = time.monotonic() - began
    assert code == 0, loop.log()
    assert (tmp_path / "state.npz").is_file()
    promise.measured(f"{whose}: ended {took:.1f} s after SIGTERM")
    assert took < promise.limit_seconds(DRAIN_SECONDS)


@pytest.mark.promise(
    fault="forecast loop: six outages in a row",
    promise="memory, descriptors and threads as before",
)
@pytest.mark.slow
def test_outages_in_a_row_cost_nothing(
    start_loop: Callable[..., Loop],
    prometheus_proxy: FaultProxy,
    triton_proxy: FaultProxy,
    promise: Promise,
) -> None:
    loop = start_loop(prometheus_proxy.address, triton_proxy.address)
    sizes = []
    for way in ("black_hole", "refuse", "reset", "stall", "refuse", "black_hole"):
        for proxy in (prometheus_proxy, triton_proxy):
            proxy.cut(way, 4.0)  # type: ignore[arg-type]
        ended = time.time()
        wait_until(lambda ended=ended: max(made(loop.read()), default=0.0) > ended, seconds=60)
        sizes.append(size_of(loop.process.pid))
    first, last = sizes[0], sizes[-1]
    promise.measured(f"{first} after the first, {last} after the sixth")
    assert last.memory_bytes < first.memory_bytes * 1.15
    assert last.descriptors <= first.descriptors + 20
    assert last.threads <= first.threads + 8
