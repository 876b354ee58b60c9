"""Every expression of every dashboard returns samples from a real Prometheus that scrapes, with the
committed configuration, the real things at work.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from services.dashboards.command import dashboard_files
from services.forecast_loop.config import load_config
from tests.fixtures.endpoints import wait_until
from tests.fixtures.metric_names import TRITON_FILE, asked_names, substituted
from tests.fixtures.whole_stack import DEPLOY, LINES, ROOT, WholeStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SUPERVISOR = "presage_supervisor_"
"""Beside `python -m embedded_triton up` only; this stack's server is the test's own."""
OF_AN_OUTAGE = {"presage_jobs_errors_total", "presage_log_classifier_errors_total"}
"""They have no series until Triton is away; the last test takes it away."""
OF_AN_ALERT = "ALERTS{alertstate="
"""Marks only what fires, and a forecast alert waits for ten minutes before it does."""


@pytest.fixture(scope="module")
def stack(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeStack]:
    with WholeStack(tmp_path_factory.mktemp("stack"), toy_model) as running:
        yield running


@pytest.fixture(scope="module")
def busy(stack: WholeStack) -> WholeStack:
    """After traffic of every kind, long enough for rates."""
    stack.traffic(20)
    return stack


def expressions() -> dict[str, list[str]]:
    """Board → expressions as Grafana would ask: the committed boards, and the forecasts' band."""
    banded = dashboard_files(
        load_config(DEPLOY / "forecast_loop.toml", {"loop": {"quantiles": True}})
    )
    texts = {
        file.stem: file.read_text("utf-8") for file in ROOT.glob("deploy/grafana/dashboards/*.json")
    }
    texts["presage-forecasts with quantiles"] = banded["presage-forecasts.json"]
    found = {}
    for name, text in texts.items():
        board = json.loads(text)
        found[name] = [
            *(target["expr"] for panel in board["panels"] for target in panel.get("targets", ())),
            *(one["expr"] for one in board["annotations"]["list"]),
            *(
                re.sub(r"^label_values\((.+), \w+\)$", r"\1", one["query"])
                for one in board["templating"]["list"]
                if one["type"] == "query"
            ),
        ]
    return {name: [substituted(text) for text in texts] for name, texts in found.items()}


def is_excused(expression: str) -> bool:
    names = asked_names(expression)
    return (
        bool(names & OF_AN_OUTAGE)
        or expression.startswith(OF_AN_ALERT)
        or all(name.startswith(SUPERVISOR) for name in names)
    )


def test_every_target_of_the_committed_configuration_answers(stack: WholeStack) -> None:
    def jobs(query: str) -> set[str]:
        return {one["metric"]["job"] for one in stack.prometheus.query(query)}

    wait_until(
        lambda: jobs("up == 1") == set(stack.prometheus.targets) and not jobs("up == 0"),
        seconds=60,
        what="every target is up",
    )
    assert not stack.prometheus.rule_health()


@pytest.mark.parametrize("name", expressions())
def test_every_expression_returns_samples(name: str, busy: WholeStack) -> None:
    asked = [text for text in expressions()[name] if not is_excused(text)]
    assert len(asked) >= 10
    deadline = time.monotonic() + 90
    while missing := [text for text in asked if not busy.prometheus.query(text)]:
        if time.monotonic() > deadline:
            pytest.fail("no samples of:\n" + "\n".join(missing))
        busy.traffic(3)


def test_the_forecast_of_this_moment_lies_beside_what_came(busy: WholeStack) -> None:
    """Not only some sample: the series of the source, with its own forecasts of 1h and 12h ago."""
    row = [text for text in expressions()["presage-forecasts"] if "quota_group" in text]
    actual, hour, half_day = row[:3]
    for expression in (actual, hour, half_day):
        groups = {one["metric"]["group"] for one in busy.prometheus.query(expression)}
        assert {"calm", "growing"} <= groups, expression
    assert hour.endswith("offset 1h)")
    assert half_day.endswith("offset 12h)")


def test_the_committed_names_of_triton_are_the_servers(busy: WholeStack) -> None:
    page = httpx.get(f"http://{busy.triton.metrics_url}/metrics", trust_env=False).text
    exposed = set(re.findall(r"^# TYPE (\S+ \S+)", page, re.MULTILINE))
    # A GPU host has more; nothing asks for those.
    assert set(TRITON_FILE.read_text("utf-8").splitlines()) == {
        line for line in exposed if not line.startswith(("nv_gpu", "nv_energy"))
    }


def test_z_an_outage_is_seen(busy: WholeStack, tmp_path: Path) -> None:
    """Last: Triton goes away. What is excused above has samples then, and alerts wait to fire."""
    excused = [
        text
        for texts in expressions().values()
        for text in texts
        if asked_names(text) & OF_AN_OUTAGE
    ]
    assert excused
    busy.triton.stop()
    busy.logs.lines("\n".join(f"{line} when it was away" for line in LINES).encode())
    busy.jobs.fail("job-away", f"RuntimeError: {LINES[0]}\n")
    deadline = time.monotonic() + 120
    while missing := [text for text in excused if not busy.prometheus.query(text)]:
        assert time.monotonic() < deadline, missing
        time.sleep(1)
    for alert in ("TritonDown", "TritonNoneAnswers"):
        busy.prometheus.wait_for(f'ALERTS{{alertname="{alert}"}}', seconds=60)
