"""The gateway without its server, its network or its Prometheus: right answers, typed refusals."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.endpoints import Webhook, wait_until
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.gateway_process import Gateway, free_ports, gateway_process
from tests.fixtures.steady_asker import Asked, SteadyAsker, same, size_of
from tests.fixtures.toy_model import LINES
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import (
    LONG_SECONDS,
    SHORT_SECONDS,
    WAYS,
    MortalServer,
    long,
)

DEADLINE_SECONDS = 3.0
RECOVERY_SECONDS = 3.0
# Whoever asks may be scheduled late; the service's part is far below.
GRACE_SECONDS = 1.5
Question = tuple[str, str, dict[str, Any]]
QUESTIONS: list[Question] = [
    *(("log_anomaly", "/v1/logs", {"lines": [line, f"{n} {line}"]})
      for n, line in enumerate(LINES)),
    *(
        ("metric_forecast", "/v1/forecast", {"series": [[float(n + i) for i in range(30)]],
         "preset": "next", "step_seconds": 300}) for n in range(6)
    ),
    *(("train_failure_rca", "/v1/diagnose", {"text": f"step {n}\n{line}"})
      for n, line in enumerate(LINES)),
]  # fmt: skip


@contextlib.contextmanager
def gateway_before(folder: Path, triton: str, *words: str, **variables: str) -> Iterator[Gateway]:
    words = ("all", "--no-tokens", *free_ports(words))
    with gateway_process(folder, f"grpc://{triton}", *words, **variables) as running:
        yield running


class Caller:
    """Asks the questions in turn; ``expected`` are the answers of an undisturbed run."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=8)
        self.http = httpx.Client(timeout=90, trust_env=False, limits=limits)
        self.expected = [self.http.post(self._url(q), json=q[2]) for q in QUESTIONS]
        assert {answer.status_code for answer in self.expected} == {200}

    def _url(self, question: Question) -> str:
        return self.gateway.urls[question[0]] + question[1]

    def ask(self, number: int) -> httpx.Response:
        """Every third caller has no deadline of its own, so the service's 60 s hold for it."""
        question = QUESTIONS[number % len(QUESTIONS)]
        headers = {} if number % 3 == 0 else {"x-request-timeout": str(DEADLINE_SECONDS)}
        return self.http.post(self._url(question), json=question[2], headers=headers)

    def check(self, asked: list[Asked], grace_seconds: float) -> Counter[str]:
        """Right, or refused as the contract says, and in time; how often each."""
        seen: Counter[str] = Counter()
        for one in asked:
            assert one.error is None, one
            answer: httpx.Response = one.answer
            seen[str(answer.status_code)] += 1
            if one.number % 3:
                assert one.seconds < DEADLINE_SECONDS + grace_seconds, (one, answer.text)
            if answer.status_code == 200:
                assert same(answer.json(), self.expected[one.number % len(QUESTIONS)].json())
                continue
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.status_code in (503, 504, 429), answer.text
            if answer.status_code != 504:
                assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] in ("unavailable", "deadline", "overloaded"), answer.text
        return seen

    def ready(self) -> dict[str, int]:
        return {
            api: self.http.get(f"{url}/readyz").status_code
            for api, url in self.gateway.urls.items()
        }

    def recovered_after(self, moment: float, asker: SteadyAsker) -> float:
        """Seconds from ``moment`` until the first question of each API that was answered, after
        which no question that began later failed.
        """
        wait_until(
            lambda: all(self._answers_of(api, asker.since(moment)) for api in self.gateway.urls),
            seconds=90,
            what="every API answers again",
        )
        time.sleep(1.5)
        failed = [one.began for one in asker.since(moment) if one.answer.status_code != 200]
        first = max(
            min(one.ended for one in self._answers_of(api, asker.since(moment)))
            for api in self.gateway.urls
        )
        return max([first, *failed]) - moment

    @staticmethod
    def _answers_of(api: str, asked: list[Asked]) -> list[Asked]:
        return [
            one
            for one in asked
            if one.error is None
            and one.answer.status_code == 200
            and QUESTIONS[one.number % len(QUESTIONS)][0] == api
        ]


def summary(seen: Counter[str]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in sorted(seen.items()))


@pytest.mark.promise(
    fault="gateway: its server's network is lost",
    promise="right answers or typed refusals within the deadline; back within 3 s, or 20 s after a "
    "connection was forgotten",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [
        ("refuse", SHORT_SECONDS),
        long("black_hole", SHORT_SECONDS),
        *(long(way, LONG_SECONDS) for way in (*WAYS, "flap")),
    ],
)
def test_network_lost(
    way: Any, seconds: float, triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    with gateway_before(tmp_path, triton_proxy.address) as gateway:
        caller = Caller(gateway)
        with SteadyAsker(caller.ask) as asker:
            time.sleep(1.0)
            began = time.monotonic()
            if way == "flap":
                triton_proxy.flap(seconds)
            else:
                triton_proxy.set(way)
                asker.burst(40)
                time.sleep(seconds)
                if seconds > 10 and way != "slow":
                    assert set(caller.ready().values()) == {503}
                triton_proxy.set("pass")
            ended = time.monotonic()
            recovery = caller.recovered_after(ended, asker)
        seen = caller.check(asker.asked, promise.limit_seconds(GRACE_SECONDS))
        during = [one for one in asker.since(began) if one.began < ended]
        assert len(during) >= 4 * seconds
        wait_until(lambda: set(caller.ready().values()) == {200}, seconds=15, what="ready")
        promise.measured(f"{way} {seconds:g} s: {summary(seen)}; back {recovery:.1f} s after")
        limit = RECOVERY_SECONDS + (20 if way in ("black_hole",) and seconds < 20 else 0)
        # Without pings on the connection it would be the 60 s of the callers that wait longest.
        assert recovery < min(promise.limit_seconds(limit), 50.0)


@pytest.mark.promise(
    fault="gateway: six outages in a row",
    promise="memory, descriptors and threads as before",
)
@pytest.mark.slow
def test_outages_in_a_row_cost_nothing(
    triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    with gateway_before(tmp_path, triton_proxy.address) as gateway:
        caller = Caller(gateway)
        sizes = []
        for way in ("black_hole", "refuse", "reset", "stall", "refuse", "black_hole"):
            with SteadyAsker(caller.ask) as asker:
                asker.burst(20)
                triton_proxy.cut(way, 5.0)  # type: ignore[arg-type]
                caller.recovered_after(time.monotonic(), asker)
            caller.check(asker.asked, promise.limit_seconds(GRACE_SECONDS))
            time.sleep(2.0)
            sizes.append(size_of(gateway.process.pid))
        first, last = sizes[0], sizes[-1]
        promise.measured(f"{first} after the first outage, {last} after the sixth")
        assert last.memory_bytes < first.memory_bytes * 1.15
        assert last.descriptors <= first.descriptors + 20
        assert last.threads <= first.threads + 8


@pytest.mark.promise(
    fault="gateway: kill -9 of tritonserver, back on the same ports",
    promise="right answers or typed refusals, ready again within 3 s of the server",
)
@pytest.mark.slow
def test_server_killed(mortal_server: MortalServer, tmp_path: Path, promise: Promise) -> None:
    with gateway_before(tmp_path, mortal_server.address) as gateway:
        caller = Caller(gateway)
        with SteadyAsker(caller.ask) as asker:
            asker.burst(20)
            mortal_server.kill()
            time.sleep(LONG_SECONDS)
            assert set(caller.ready().values()) == {503}
            mortal_server.start()
            recovery = caller.recovered_after(time.monotonic(), asker)
        seen = caller.check(asker.asked, promise.limit_seconds(GRACE_SECONDS))
        promise.measured(f"{summary(seen)}; back {recovery:.1f} s after the server")
        assert recovery < promise.limit_seconds(RECOVERY_SECONDS)


@pytest.mark.promise(
    fault="gateway: SIGTERM while its server says nothing",
    promise="ends within its drain of 3 s and 5 s more, everybody answered",
)
@pytest.mark.slow
def test_sigterm_in_a_black_hole(
    triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    """One of the questions is a large one, which a thread asks."""
    short = {"PRESAGE_DRAIN_SECONDS": "3"}
    with gateway_before(tmp_path, triton_proxy.address, **short) as gateway:
        caller = Caller(gateway)
        large = {"lines": ["generating core.2275" * 20] * 1000}
        triton_proxy.set("black_hole")

        def ask(number: int) -> int:
            if number % 4:
                return caller.ask(number).status_code
            url = gateway.urls["log_anomaly"] + "/v1/logs"
            return caller.http.post(url, json=large).status_code

        with SteadyAsker(ask) as asker:
            asker.burst(8)
            time.sleep(1.0)
            began = time.monotonic()
            gateway.process.terminate()
            code = gateway.process.wait(60)
            took = time.monotonic() - began
        assert code == 0, gateway.problems
        promise.measured(f"ended {took:.1f} s after SIGTERM")
        assert took < promise.limit_seconds(8.0)


@pytest.mark.promise(
    fault="gateway: its Prometheus, or its server's description, never comes or trickles in",
    promise="the caller's deadline of 2 s holds",
)
@pytest.mark.slow
@pytest.mark.parametrize("way", ["black_hole", "slow", "stall"])
def test_the_callers_deadline_holds_everywhere(
    way: Any, triton_proxy: FaultProxy, tmp_path: Path, promise: Promise
) -> None:
    """The gateway has just started: nothing is known of the models yet."""
    with Webhook() as any_server, FaultProxy(any_server.target) as prometheus:
        words = (f"--prometheus=main=http://{prometheus.address}",)
        with gateway_before(tmp_path, triton_proxy.address, *words) as gateway:
            headers = {"x-request-timeout": "2"}
            query = {"query": "up", "preset": "next", "step_seconds": 300}
            paths = [("metric_forecast", "/v1/forecast/query", query)]
            took = []

            def ask(api: str, path: str, body: dict[str, Any] | None) -> None:
                began = time.monotonic()
                answer = httpx.request(
                    "GET" if body is None else "POST",
                    gateway.urls[api] + path,
                    json=body,
                    headers=headers,
                    timeout=70,
                    trust_env=False,
                )
                took.append(time.monotonic() - began)
                assert answer.status_code in (503, 504), (path, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"

            triton_proxy.set(way)
            for question in (*QUESTIONS[::6], ("log_anomaly", "/v1/models", None), *paths):
                ask(*question)
            triton_proxy.set("pass")
            prometheus.set(way)
            # The server may still be on its way back.
            wait_until(
                lambda: caller_is_ready(gateway, "metric_forecast"), seconds=30, what="ready"
            )
            ask(*paths[0])
            promise.measured(f"{way}: {len(took)} refusals within {max(took):.1f} s")
            assert max(took) < 2.0 + promise.limit_seconds(GRACE_SECONDS)


def caller_is_ready(gateway: Gateway, api: str) -> bool:
    return httpx.get(f"{gateway.urls[api]}/readyz", timeout=20, trust_env=False).is_success
