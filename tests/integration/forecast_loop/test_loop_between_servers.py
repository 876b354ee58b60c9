"""The loop between a real Prometheus, a real tritonserver and a real Pushgateway."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer
from services.forecast_loop.config import load_config
from services.forecast_loop.loop import ForecastLoop
from services.forecast_loop.server import MetricsServer
from tests.fixtures.loop_process import (
    NEWEST,
    QUOTA,
    SERIES,
    forecasts,
    own,
    run_loop,
    values,
)
from tests.fixtures.prometheus_stack import (
    Prometheus,
    Pushgateway,
    free_port,
    program,
)
from tests.integration.forecast_loop.conftest import WriteConfig


def assert_promtool_finds_nothing(page: bytes, but: str = "nothing") -> None:
    check = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=30
    )
    said = (check.stdout + check.stderr).decode().splitlines()
    assert [line for line in said if but not in line] == []


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
    assert_promtool_finds_nothing(page)
    assert (tmp_path / "state.npz").is_file()
    loop.close()


def test_after_the_first_cycle_only_new_points_are_read(
    prometheus: Prometheus, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ForecastLoop(load_config(write_config(prometheus.url)))
    asked: list[int] = []
    ask = loop._prometheus.query_range
    monkeypatch.setattr(
        loop._prometheus,
        "query_range",
        lambda expression, grid: asked.append(grid.points) or ask(expression, grid),
    )
    now = time.time()
    for ago in (900, 600, 300, 0):
        assert loop.cycle(now - ago) == "ok"
    assert asked == [288, 2, 2, 2]
    store = loop._states[0].store
    assert store is not None
    # What was read bit by bit is what one read gives.
    once = ForecastLoop(load_config(write_config(prometheus.url)))
    once.cycle(now)
    whole = once._states[0].store
    assert whole is not None
    for key in NEWEST:
        row, other = store.row(key), whole.row(key)
        assert row is not None
        assert other is not None
        assert store.values[row] == pytest.approx(whole.values[other], nan_ok=True)
    loop.close()
    once.close()


@pytest.mark.parametrize(
    "expression", ["quota_group_use_ratio", "avg_over_time(quota_group_use_ratio{$shard}[10m])"]
)
def test_shards_find_labels_with_quotes_and_backslashes(
    prometheus: Prometheus, write_config: WriteConfig, expression: str
) -> None:
    queries = QUOTA + f'expr = "{expression}"\nshard_by = "clu_name"\nshard_values = 1\n'
    loop = ForecastLoop(load_config(write_config(prometheus.url, queries=queries)))
    assert loop.cycle() == "ok", loop.first_error
    assert forecasts(loop.exposition.current().body) == pytest.approx(NEWEST, abs=0.01)
    loop.close()


def test_scales_survive_a_restart(
    prometheus: Prometheus, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = load_config(write_config(prometheus.url, loop="quantiles = true"))
    now = time.time()
    loop = ForecastLoop(config)
    for step in range(26, 1, -1):
        assert loop.cycle(now - step * 300) == "ok"
    page = loop.exposition.current().body
    sigmas = {k: v for k, v in values(page).items() if "sigma" in k[0]}
    # The label's name is the metric contract's; to promtool it is a matter of taste.
    assert_promtool_finds_nothing(page, but='should not have "quantile" label')
    assert page.count(b"\nai_forecast_quota_group_use_ratio_quantile{") == len(SERIES) * 2 * 3
    loop.close()
    assert len(sigmas) == len(SERIES)
    # An hour of the wave: the stand-in's error is what the wave moves in an hour.
    assert all(0.001 < value < 0.03 for value in sigmas.values())
    again = ForecastLoop(config)
    assert again.cycle(now - 300) == "ok"
    restored = {k: v for k, v in values(again.exposition.current().body).items() if "sigma" in k[0]}
    again.close()
    assert restored.keys() == sigmas.keys()
    for key, value in restored.items():
        assert value == pytest.approx(sigmas[key], rel=0.2)
    # Without the file there are none yet: they came from it.
    (tmp_path / "state.npz").write_bytes(b"not a zip")
    fresh = ForecastLoop(config)
    assert fresh.cycle(now) == "ok"
    page = fresh.exposition.current().body
    assert not any("sigma" in name for name, _ in values(page))
    assert own(page, "warnings_total", metric="loop", reason="state_file") == 1.0
    fresh.close()


BAD_QUERIES = {
    "bad_query": 'expr = "quota_group_use_ratio{"',
    "unknown_metric": 'expr = "no_such_metric"',
    "empty_result": 'expr = "quota_group_use_ratio{clu_name=\\"z\\"}"',
    "counter": 'expr = "requests_total"',
    "missing_label": 'expr = "quota_group_use_ratio"\nstep = "10m"',
}


def test_bad_queries_harm_only_themselves(
    prometheus: Prometheus, write_config: WriteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    queries = QUOTA + "".join(
        f'[[queries]]\nmetric = "{reason}"\n{setting}\n'
        f'labels = ["{"group_name" if reason == "missing_label" else "group"}"]\n'
        for reason, setting in BAD_QUERIES.items()
    )
    loop = ForecastLoop(load_config(write_config(prometheus.url, queries=queries)))
    assert loop.cycle() == "partial"
    assert loop.cycle() == "partial"
    page = loop.exposition.current().body
    assert len(forecasts(page)) == len(SERIES)
    for reason in BAD_QUERIES:
        errors = own(page, "query_errors_total", metric=reason, reason=reason)
        assert errors == 2.0, (reason, [k for k in values(page) if "errors" in k[0]])
        said = [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"{reason}: ")]
        assert len(said) == 1, said  # once an interval, though it failed twice
    assert "rate(requests_total[5m])" in caplog.text
    assert "unclosed" in caplog.text or "unexpected" in caplog.text  # Prometheus' own words
    loop.close()


def test_pushes_writes_and_is_scraped(
    prometheus: Prometheus, write_config: WriteConfig, tmp_path: Path
) -> None:
    """The one page arrives by all three ways, and the labels are the source's own."""
    with (
        Pushgateway(tmp_path / "pushgateway") as gateway,
        Prometheus(tmp_path / "receiver") as receiver,
    ):
        outlets = f'push_url = "{gateway.url}"\nremote_write_url = "{receiver.url}/api/v1/write"\n'
        loop = ForecastLoop(load_config(write_config(prometheus.url, loop=outlets)))
        assert loop.cycle() == "ok", loop.first_error
        pushed = httpx.get(gateway.url + "/metrics", trust_env=False).content
        assert forecasts(pushed) == pytest.approx(NEWEST, abs=0.002)
        written = receiver.query('ai_forecast_quota_group_use_ratio{horizon="12h"}')
        assert {
            (s["metric"]["clu_name"], s["metric"]["group"]): float(s["value"][1]) for s in written
        } == pytest.approx(NEWEST, abs=0.002)
        assert receiver.value('ai_forecast_loop_cycles_total{job="forecast_loop",result="ok"}') == 1
        assert len(receiver.query("ai_forecast_timestamp_seconds")) == len(SERIES) * 2

        with MetricsServer(("127.0.0.1", 0), loop.exposition, loop.not_ready) as server:
            receiver.scrape = {"loop": "{}:{}".format(*server.address)}
            receiver.reload()
            found = receiver.wait_for('ai_forecast_quota_group_use_ratio{job="loop",horizon="1h"}')
            assert {(s["metric"]["clu_name"], s["metric"]["group"]) for s in found} == set(SERIES)
            assert receiver.value('up{job="loop"}') == 1

        # The gateway goes, and comes back empty: seen, survived, filled again.
        gateway.kill()
        assert loop.cycle() == "ok"
        assert loop.first_error is not None
        gateway.start()
        loop.cycle()
        page = loop.exposition.current().body
        assert own(page, "publish_errors_total", outlet="pushgateway") == 1.0
        pushed = httpx.get(gateway.url + "/metrics", trust_env=False).content
        assert len(forecasts(pushed)) == len(SERIES)
        loop.close()


def test_check_and_once(
    prometheus: Prometheus, write_config: WriteConfig, repository_root: Path, tmp_path: Path
) -> None:
    good = run_loop(repository_root, write_config(prometheus.url), "check")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "quota_group_use_ratio: 4 series" in good.stdout
    once = run_loop(repository_root, write_config(prometheus.url), "--once")
    assert once.returncode == 0, once.stderr
    assert len(forecasts(once.stdout.encode())) == len(SERIES)
    queries = QUOTA + '[[queries]]\nmetric = "requests_total"\nlabels = ["instance"]\n'
    bad = run_loop(repository_root, write_config(prometheus.url, queries=queries), "check")
    assert bad.returncode == 2
    assert "! counter: requests_total is a counter" in bad.stdout
    nobody = run_loop(repository_root, write_config(f"http://127.0.0.1:{free_port()}"), "check")
    assert nobody.returncode == 12
    assert "Prometheus cannot be reached" in nobody.stderr


def test_the_scale_benchmark_measures_a_loop(triton: EmbeddedServer, repository_root: Path) -> None:
    words = ["loadtest", "forecast-loop", "--series", "200", "--url", triton.grpc_url]
    result = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=repository_root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "| prometheus | 200 |" in result.stdout
    assert "| recorded | 200 |" in result.stdout
    assert "0 series without a forecast" in result.stdout
