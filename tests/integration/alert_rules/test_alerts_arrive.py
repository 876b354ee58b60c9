"""From the source's /metrics to the webhook, with every server real."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.alert_rules.conftest import METRIC, World

LINE = f"ai_forecast:{METRIC}:line"
FRESH = f"ai_forecast:{METRIC}:fresh"


def told_of(world: World, alert: str, **labels: str) -> list[dict]:
    return world.webhook.alerts(alert, "firing", **labels)


def test_growth_is_told_and_resolved_and_a_plateau_is_not(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    alert = world.webhook.wait_for("ForecastDualConfirmed", group="growth", seconds=40)
    assert alert["labels"] == {
        "alertname": "ForecastDualConfirmed",
        "clu_name": "c1",
        "group": "growth",
        "horizon": "60s",
        "metric": METRIC,
        "severity": "warning",
    }
    assert alert["annotations"]["summary"].startswith(f"c1/growth: {METRIC} is expected at 1")
    assert "none" not in alert["annotations"]["summary"]
    assert "线性外推" in alert["annotations"]["summary_zh"]

    # The plateau: the line alone is beyond, the model knows better, and all of it is alive.
    world.webhook.wait_for("ForecastHeartbeat")
    beyond = f'({LINE}{{group="plateau"}} > 0.98)[10m:1s]'
    assert world.prometheus.value(f"count_over_time({beyond})") > 3, "for: is 2 s"
    assert world.value(FRESH, "plateau") == pytest.approx(0.7, abs=0.05)
    assert not told_of(world, "ForecastDualConfirmed", group="plateau")
    assert not told_of(world, "ForecastModelOnly", group="plateau")

    # Somebody cleans up: it is over, and that is told, too.
    world.usage["growth"] = lambda t: 0.3
    world.webhook.wait_for("ForecastDualConfirmed", status="resolved", group="growth", seconds=40)
    assert not told_of(world, "ForecastDualConfirmed", group="plateau")
    assert {alert["labels"]["group"] for alert in told_of(world, "ForecastDualConfirmed")} == {
        "growth"
    }
    assert not told_of(world, "ForecastStale")
    assert not told_of(world, "ForecastLoopDown")
    assert world.prometheus.rule_health() == {}

    # The loop dies, and is started again.
    world.kill_loop()
    world.webhook.wait_for("ForecastLoopDown")
    stale = world.webhook.wait_for("ForecastStale")
    assert stale["annotations"]["summary"].startswith(f"3 series of {METRIC} are alive but")
    world.start_loop()
    world.webhook.wait_for("ForecastStale", status="resolved")
    world.webhook.wait_for("ForecastLoopDown", status="resolved")


def test_a_pushgateway_does_not_keep_a_dead_loop_alive(make_world: Callable[..., World]) -> None:
    world = make_world(pushed=True, scraped=False, timestamp_per="query")
    world.webhook.wait_for("ForecastDualConfirmed", group="growth", seconds=40)
    assert not told_of(world, "ForecastStale")
    assert len(world.prometheus.query("ai_forecast_timestamp_seconds")) == 1
    world.kill_loop()
    world.webhook.wait_for("ForecastStale", seconds=40)
    world.webhook.wait_for("ForecastLoopNoSuccess", metric=METRIC)
    # The gateway repeats the dead loop's words, and nobody believes them.
    assert world.value(f"ai_forecast_{METRIC}", "growth") > 0.98
    assert world.prometheus.query(FRESH) == []
    world.webhook.wait_for("ForecastDualConfirmed", status="resolved", group="growth", seconds=40)
    assert not told_of(world, "ForecastDualConfirmed", group="plateau")
    assert world.prometheus.rule_health() == {}
