"""Whole cycles against an in-process Prometheus and a stand-in of the Triton client."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ServerUnavailableError
from services.forecast_loop.config import LoopConfig
from services.forecast_loop.loop import ForecastLoop
from services.forecast_loop.reading import QueryReader
from tests.unit.forecast_loop.conftest import FakeServer, refused, success
from tests.unit.forecast_loop.test_exposition import labelled, parse
from tests.unit.forecast_loop.test_forecaster import FakeClient
from tests.unit.forecast_loop.test_reading import STEP, Source

LABELS = ["cluster", "group"]


class World:
    """A loop, its clock, and the two servers it speaks with."""

    def __init__(self, server: FakeServer, folder: Path) -> None:
        self.source = Source(server)
        self.source.series = {("a", "x", ""): (0, 10**9), ("b", "x", ""): (0, 10**9)}
        self.time = 10_000.0 * STEP
        self.skew = 0.0
        self.client = FakeClient()
        self.config = {
            "prometheus": {"url": server.url, "attempts": 1},
            "loop": {"state_file": str(folder / "state.npz")},
            "queries": [{"metric": "m", "labels": LABELS, "unit": "count"}],
        }
        server.respond = self.respond
        self.is_away = False

    def respond(self, path: str, form: dict[str, str]) -> tuple[int, bytes]:
        if self.is_away:
            return refused(503, "starting up")
        if form.get("query") == "time()":
            now = self.time + self.skew
            return 200, success({"resultType": "scalar", "result": [now, str(now)]})
        return self.source.respond(path, form)

    def loop(self) -> ForecastLoop:
        loop = ForecastLoop(LoopConfig.model_validate(self.config), clock=lambda: self.time)
        loop._forecaster._client = self.client  # type: ignore[assignment]
        return loop


@pytest.fixture
def world(fake_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # The skew is measured against the real clock; here both clocks are the test's.
    world = World(fake_server, tmp_path)
    monkeypatch.setattr("services.forecast_loop.prometheus.time.time", lambda: world.time)
    return world


def shown(loop: ForecastLoop, name: str = "ai_forecast_m", **labels: str) -> dict[Any, float]:
    wanted = set(labels.items())
    return {
        key: value
        for key, value in parse(loop.exposition.current().body).items()
        if key[0] == name and wanted <= set(key[1])
    }


def test_a_skewed_clock_is_told_and_prometheus_time_counts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.skew = -7 * STEP
    loop = world.loop()
    assert loop.cycle() == "ok"
    (_, _, end) = world.source.ranges[-1]
    assert end == 10_000 - 7
    assert set(shown(loop, "ai_forecast_timestamp_seconds").values()) == {world.time + world.skew}
    assert list(shown(loop, "ai_forecast_loop_clock_skew_seconds").values()) == [-2100.0]
    reason = {"metric": "loop", "reason": "clock_skew"}
    assert list(shown(loop, "ai_forecast_loop_warnings_total", **reason).values()) == [1.0]
    assert "Prometheus' clock is -2100.0 s from ours" in caplog.text
    assert loop.not_ready() is None
    world.skew = 1.0  # within what a network takes: nothing is said
    loop.cycle()
    assert list(shown(loop, "ai_forecast_loop_warnings_total", **reason).values()) == [1.0]


def test_an_internal_fault_in_one_query_leaves_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.config["queries"] = [
        {"metric": "m", "labels": LABELS},
        {"metric": "other", "expr": "m", "labels": LABELS},
    ]
    read = QueryReader.read

    def faulty(self: QueryReader, *arguments: Any) -> Any:
        if self.query.metric == "m":
            raise ZeroDivisionError("ours")
        return read(self, *arguments)

    monkeypatch.setattr(QueryReader, "read", faulty)
    loop = world.loop()
    assert loop.cycle() == "partial"
    assert len(shown(loop, "ai_forecast_other")) == 4
    assert not shown(loop)
    errors = shown(loop, "ai_forecast_loop_query_errors_total", metric="m", reason="internal")
    assert list(errors.values()) == [1.0]
    assert "ZeroDivisionError: ours" in caplog.text


def test_forecasts_age_out_while_triton_is_away(world: World) -> None:
    loop = world.loop()
    assert loop.cycle() == "ok"
    first = world.time
    world.client.errors = {number: ServerUnavailableError("away") for number in range(1, 10)}
    for cycle, count in enumerate((4, 4, 0), 1):
        world.time = first + cycle * STEP + 0.5 * (cycle == 3)
        assert loop.cycle() == "failed"
        loop._forecaster._client = world.client  # type: ignore[assignment]
        assert len(shown(loop)) == (count if cycle < 3 else 0), cycle
        assert set(shown(loop, "ai_forecast_timestamp_seconds").values()) <= {first}
        reads = shown(loop, "ai_forecast_loop_series", metric="m", state="read")
        assert list(reads.values()) == [2.0]
    assert loop.not_ready() is not None
    failed = shown(loop, "ai_forecast_loop_series_failed_total", reason="unavailable")
    assert list(failed.values()) == [6.0]
    world.client.errors.clear()
    assert loop.cycle() == "ok"
    assert len(shown(loop)) == 4


def test_series_that_end_are_not_served_as_fresh(world: World) -> None:
    loop = world.loop()
    now = int(world.time) // STEP
    world.source.series["b", "x", ""] = (0, now)
    made = []
    for _ in range(8):
        loop.cycle()
        stamps = shown(loop, "ai_forecast_timestamp_seconds", cluster="b", horizon="12h")
        made.append([value - now * STEP for value in stamps.values()])
        world.time += STEP
    # It is forecast and shown while it has a point within stale_after, and not a cycle longer.
    assert made == [[0.0], [300.0], [600.0], [900.0], [], [], [], []]
    reads = shown(loop, "ai_forecast_loop_series", metric="m", state="read")
    assert list(reads.values()) == [1.0]


def test_ten_times_more_series_than_expected(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.config["queries"][0]["max_series"] = 5  # type: ignore[index]
    world.source.series = {("a", f"{i:02d}", ""): (0, 10**9) for i in range(50)}
    loop = world.loop()
    for _ in range(3):
        assert loop.cycle() == "ok"
        groups = {dict(labels)["group"] for _, labels in shown(loop)}
        assert groups == {"00", "01", "02", "03", "04"}
        world.time += STEP
    failed = shown(loop, "ai_forecast_loop_series_failed_total", reason="too_many_series")
    assert list(failed.values()) == [45.0 * 3]
    assert caplog.text.count("45 series are left out, such as") == 1


def test_prometheus_away_is_one_question_a_cycle(world: World) -> None:
    world.config["queries"] = [
        {"metric": name, "expr": "m", "labels": LABELS} for name in ("m", "n", "o")
    ]
    loop = world.loop()
    world.is_away = True
    asked = len(world.source.server.asked)
    assert loop.cycle() == "failed"
    assert len(world.source.server.asked) == asked + 1
    errors = shown(loop, "ai_forecast_loop_query_errors_total", reason="unavailable")
    assert list(errors.values()) == [1.0] * 3
    assert isinstance(loop.first_error, ServerUnavailableError)


def test_cycles_begin_an_interval_apart_and_missed_ones_are_left(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.config["loop"]["interval"] = "1s"  # type: ignore[index]
    loop = world.loop()
    began: list[float] = []
    start = time.monotonic()

    def cycle(at_seconds: float | None = None) -> str:
        began.append(time.monotonic() - start)
        loop.stop.wait([0.3, 1.2, 0.0, 0.0][len(began) - 1])
        if len(began) == 4:
            loop.stop.set()
        return "ok"

    monkeypatch.setattr(loop, "cycle", cycle)
    thread = threading.Thread(target=loop.run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    # On the beat of the first: 0, 1, (2 is missed), 3, 4. Late by scheduling, never early.
    for moment, beat in zip(began, (0, 1, 3, 4), strict=True):
        assert beat - 0.01 <= moment
    assert "a cycle took" in caplog.text


def test_scales_are_known_by_their_query(world: World, tmp_path: Path) -> None:
    loop = world.loop()
    for _ in range(26):
        assert loop.cycle() == "ok"
        world.time += STEP
    sigmas = shown(loop, "ai_forecast_residual_sigma")
    assert set(sigmas) == {
        labelled("ai_forecast_residual_sigma", metric="m", horizon="1h", cluster=c, group="x")
        for c in "ab"
    }
    # The stand-in says newest + 12 for an hour, and the series rises by one a step: no error.
    assert set(sigmas.values()) == {0.0}
    assert (tmp_path / "state.npz").is_file()
