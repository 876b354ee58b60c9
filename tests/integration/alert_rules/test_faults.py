"""Two simulated hours of faults: a cycle every 5 s stands for one every 5 min, 60 times as fast.

Nothing is simulated but the pace: the loop is its own process, and the servers are real. A watcher
reads the loop's /metrics four times a second and judges each page by the clock.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.prometheus_stack import FaultyProxy
from tests.integration.alert_rules.conftest import METRIC, World, calm, growth, plateau

STEP = 5
INTERVALS = 24
STALE_AFTER = 4
CYCLE_SECONDS = 2.5
"""What a cycle may take here: the next one begins within an interval and ends so much later."""
RENEWED_SECONDS = STEP + CYCLE_SECONDS
LOOK_EVERY = 0.25
TOO_MUCH = b'{"status":"error","errorType":"execution","error":"too many samples"}'
GROUPS = {"growth", "plateau", "calm", "comes and goes"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Look:
    """One page: when it was asked for, and each group's forecast's timestamp."""

    at: float
    made: dict[str, float]
    forecast: frozenset[str]


@dataclass
class Watcher:
    """Looks at /metrics until told to stop."""

    url: str
    looks: list[Look] = field(default_factory=list)
    unanswered: int = 0
    own: dict[tuple[str, str], float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(10)

    def _watch(self) -> None:
        with httpx.Client(trust_env=False, timeout=2) as client:
            while not self._stop.wait(LOOK_EVERY):
                at = time.time()
                try:
                    page = client.get(self.url).text
                except httpx.HTTPError:
                    self.unanswered += 1
                    continue
                self.looks.append(self._read(at, page))

    def _read(self, at: float, page: str) -> Look:
        made, forecast = {}, set()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "ai_forecast_timestamp_seconds":
                    made[sample.labels["group"]] = sample.value
                elif sample.name == f"ai_forecast_{METRIC}":
                    forecast.add(sample.labels["group"])
                elif sample.name.endswith("_errors_total"):
                    key = sample.labels.get("reason") or sample.labels["outlet"]
                    self.own[sample.name, key] = sample.value
        return Look(at, made, frozenset(forecast))


@dataclass
class Fault:
    name: str
    began: float
    allowed: float
    ended: float = 0.0

    @property
    def over(self) -> float:
        """From here on everything must be as before."""
        return self.ended + self.allowed


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with FaultyProxy("not known yet") as server:
        yield server


def test_two_hours_of_faults(make_world: Callable[..., World], proxy: FaultyProxy) -> None:
    def between(url: str) -> str:
        proxy.upstream = url
        return proxy.url

    world = make_world(
        **{"step_seconds": STEP, "stale_after": STALE_AFTER, "timeout_seconds": 2.0},
        **{"pushed": True, "between": between},
        usage={"growth": growth, "plateau": plateau, "calm": calm, "comes and goes": calm},
    )
    began, faults = time.time(), list[Fault]()
    process = world.loop

    @contextmanager
    def fault(name: str, intervals: float, allowed: float = RENEWED_SECONDS) -> Iterator[None]:
        """It lasts so many intervals; afterwards all is quiet."""
        one = Fault(name, time.time(), allowed)
        print(f"{one.began - began:6.1f} s  {name}")
        faults.append(one)
        yield
        time.sleep(max(0.0, one.began + intervals * STEP - time.time()))
        after.pop()()
        one.ended = time.time()
        time.sleep(allowed + 3)

    after: list[Callable[[], Any]] = []
    watcher = Watcher(f"http://127.0.0.1:{world.port}/metrics")
    with watcher.watching():
        time.sleep(STEP)
        with fault("Prometheus is killed", 2):
            world.prometheus.kill()
            after.append(world.prometheus.start)
        with fault("Triton is killed", 1.5):
            world.triton.stop()
            after.append(world.triton.start)
        with fault("the Pushgateway is away", 2):
            assert world.gateway is not None
            world.gateway.kill()
            after.append(world.gateway.start)
        with fault("422: too many samples", 2):
            proxy.fault = lambda path: (422, TOO_MUCH) if "query_range" in path else None
            after.append(lambda: setattr(proxy, "fault", None))
        with fault("answers come 1.5 s late", 2):
            proxy.fault = lambda path: time.sleep(1.5)
            after.append(lambda: setattr(proxy, "fault", None))
        with fault("answers do not come in time", 2):
            proxy.fault = lambda path: time.sleep(3)
            after.append(lambda: setattr(proxy, "fault", None))
        with fault("Prometheus hangs", 2):
            hanging = world.prometheus.paused()
            hanging.__enter__()
            after.append(lambda: hanging.__exit__(None, None, None))
        with fault("503", 2):
            proxy.fault = lambda path: (503, b"starting")
            after.append(lambda: setattr(proxy, "fault", None))
        # It is back once there is a scrape of it before a step of the grid, and a cycle after.
        with fault("a series vanishes", STALE_AFTER + 3, RENEWED_SECONDS + STEP + 1):
            world.usage["comes and goes"] = lambda t: float("nan")
            after.append(lambda: world.usage.update({"comes and goes": calm}))
        with fault("Triton is away for longer than forecasts are good for", STALE_AFTER + 1):
            world.triton.stop()
            after.append(world.triton.start)
            # Prometheus believed as much: the blindness is told while it lasts.
            world.webhook.wait_for("ForecastStale", seconds=60)
        time.sleep(max(0.0, began + INTERVALS * STEP - time.time()))
    ended = time.time()
    print(f"{ended - began:6.1f} s  the end: {len(watcher.looks)} looks, {watcher.own}")

    assert world.loop is process
    assert process.poll() is None, "the loop died"
    assert watcher.unanswered == 0
    assert ended - began >= INTERVALS * STEP
    judge(watcher, faults)
    # Each fault was seen and counted by its name.
    errors = "ai_forecast_loop_query_errors_total"
    for key in ((errors, "unavailable"), (errors, "deadline"), (errors, "refused")):
        assert watcher.own.get(key, 0) > 0, (key, watcher.own)
    assert watcher.own["ai_forecast_loop_publish_errors_total", "pushgateway"] > 0
    world.webhook.wait_for("ForecastStale", status="resolved", seconds=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def judge(watcher: Watcher, faults: list[Fault]) -> None:
    """No series is missing for longer than one interval beyond a fault; nothing stale is shown."""
    stale_after, problems = STALE_AFTER * STEP, []
    for look in watcher.looks:
        for group, made in look.made.items():
            if look.at - made > stale_after + 0.3:
                problems.append(f"{look.at:.1f}: {group} is {look.at - made:.1f} s old")
        if look.forecast != look.made.keys():
            problems.append(f"{look.at:.1f}: forecasts and timestamps differ")
        if not any(fault.began <= look.at <= fault.over for fault in faults):
            if missing := GROUPS - look.forecast:
                problems.append(f"{look.at:.1f}: {missing} missing in quiet times")
            if late := [g for g, m in look.made.items() if look.at - m > RENEWED_SECONDS]:
                problems.append(f"{look.at:.1f}: {late} not renewed in quiet times")
    for fault in faults:
        fresh = [
            look.at
            for look in watcher.looks
            if look.at > fault.ended
            and look.made.keys() == GROUPS
            and min(look.made.values()) > fault.ended
        ]
        during = [look for look in watcher.looks if fault.began <= look.at <= fault.over]
        lost = {
            group: round(LOOK_EVERY * sum(group not in look.forecast for look in during), 1)
            for group in sorted(GROUPS)
        }
        back = fresh[0] - fault.ended if fresh else float("inf")
        print(
            f"{fault.name}: {fault.ended - fault.began:.1f} s, all renewed after {back:.1f} s, "
            f"seconds without a forecast {lost}"
        )
        if back > fault.allowed:
            problems.append(f"{fault.name}: renewed {back:.1f} s after its end")
    vanished = next(fault for fault in faults if fault.name == "a series vanishes")
    others = [look for look in watcher.looks if vanished.began <= look.at <= vanished.ended]
    if any(look.forecast < GROUPS - {"comes and goes"} for look in others):
        problems.append("a series that vanished took others along")
    if any("comes and goes" in look.forecast for look in others[-4:]):
        problems.append("a series that vanished is still forecast")
    assert not problems, "\n".join([*problems[:10], "…", *problems[-10:]])


def pages(*, seconds: int = 100, gone: tuple[int, int] = (30, 63)) -> list[Look]:
    """What a good loop shows: renewed every interval; one series is gone for a while."""
    found = []
    for quarter in range(4 * seconds):
        at = quarter * LOOK_EVERY
        made = dict.fromkeys(GROUPS, float(int(at) // STEP * STEP))
        if gone[0] <= at < gone[1]:
            del made["comes and goes"]
        found.append(Look(at, made, frozenset(made)))
    return found


def spoilt(look: Look, group: str, made: float | None) -> Look:
    timestamps = look.made | {group: made} if made is not None else dict(look.made)
    if made is None:
        timestamps.pop(group, None)
    return Look(look.at, timestamps, frozenset(timestamps))


@pytest.mark.parametrize(
    ("says", "spoil"),
    [
        (None, lambda look: look),
        ("is 21.0 s old", lambda look: spoilt(look, "calm", look.at - 21)),
        ("'calm'} missing", lambda look: spoilt(look, "calm", None) if look.at > 90 else look),
        ("renewed inf", lambda look: spoilt(look, "calm", 59.0) if look.at > 60 else look),
        ("still forecast", lambda look: spoilt(look, "comes and goes", look.at - 1)),
        ("took others", lambda look: spoilt(look, "calm", None) if look.at > 30 else look),
    ],
)
def test_the_watch_is_no_sleeper(says: str | None, spoil: Callable[[Look], Look]) -> None:
    watcher = Watcher("", looks=[spoil(look) for look in pages()])
    faults = [Fault("a series vanishes", 20.0, RENEWED_SECONDS, 60.0)]
    if says is None:
        judge(watcher, faults)
    else:
        with pytest.raises(AssertionError) as caught:
            judge(watcher, faults)
        assert says in str(caught.value.args[0])
