"""A real Alertmanager with the committed configuration: what is told, what a cause silences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.endpoints import wait_until
from tests.fixtures.prometheus_stack import Alertmanager, program

CONFIG = Path(__file__).parents[3] / "deploy/prometheus/alertmanager.yml"
_CLIENT = httpx.Client(trust_env=False, timeout=10.0)


class CommittedAlertmanager(Alertmanager):
    def command(self) -> list[str]:
        return [
            program("prometheus-alertmanager"),
            f"--config.file={CONFIG}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={self.target}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]

    def silenced(self, *alerts: dict[str, str]) -> set[str]:
        """Names (with the instance, if any) of those that others inhibit."""
        given = [{"labels": {"severity": "warning", **labels}} for labels in alerts]
        assert _CLIENT.post(f"{self.url}/api/v2/alerts", json=given).status_code == 200

        def known() -> list[dict]:
            found: list[dict] = _CLIENT.get(f"{self.url}/api/v2/alerts").json()
            return found if len(found) == len(alerts) else []

        found = wait_until(known, seconds=20, what=f"{len(alerts)} alerts")
        return {
            " ".join(filter(None, (one["labels"]["alertname"], one["labels"].get("instance"))))
            for one in found
            if one["status"]["inhibitedBy"]
        }


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[CommittedAlertmanager]:
    with CommittedAlertmanager(tmp_path, "") as running:
        yield running


def alert(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": name, **labels}


def test_no_server_silences_whoever_asks_it(alertmanager: CommittedAlertmanager) -> None:
    assert alertmanager.silenced(
        alert("TritonNoneAnswers", severity="critical"),
        alert("TritonDown", instance="t1", severity="critical"),
        alert("LogDeliveryStuck", instance="l1"),
        alert("JobsUnanswered", instance="j1"),
        alert("ForecastLoopNoSuccess", metric="m"),
        alert("ApiModelUnavailable", api="log_anomaly"),
        # Nothing of Triton's.
        alert("NoticesLate", channel="sre"),
        alert("CertificateEnds", instance="n1"),
        alert("ForecastHeartbeat", severity="none"),
    ) == {
        *("TritonDown t1", "LogDeliveryStuck l1", "JobsUnanswered j1"),
        *("ForecastLoopNoSuccess", "ApiModelUnavailable"),
    }


def test_one_of_two_servers_silences_only_what_is_said_of_it(
    alertmanager: CommittedAlertmanager,
) -> None:
    assert alertmanager.silenced(
        alert("TritonDown", instance="t1", severity="critical"),
        alert("TritonModelGone", instance="t1", model="a", severity="critical"),
        alert("TritonRejects", instance="t2", model="a", severity="critical"),
        alert("TritonQueueGrowing", instance="t2", model="a"),
        alert("TritonQueueGrowing", instance="t3", model="b"),
        alert("JobsUnanswered", instance="t1"),
        alert("ScriptExporterDown", instance="n1"),
        alert("ScriptOutputStale", instance="n1", collector="nic"),
        alert("ScriptFailing", instance="n2", collector="nic"),
    ) == {"TritonModelGone t1", "TritonQueueGrowing t2", "ScriptOutputStale n1"}


def test_the_fast_burn_silences_the_slow_one_of_the_same_api(
    alertmanager: CommittedAlertmanager,
) -> None:
    given = [
        alert("ApiSlow", api="log_anomaly", severity="critical"),
        alert("ApiSlow", api="log_anomaly", severity="warning"),
        alert("ApiSlow", api="metric_forecast", severity="warning"),
        alert("ApiErrors", api="log_anomaly", severity="warning"),
        alert("TritonCrashLoop", instance="s1", model="a", severity="critical"),
        alert("TritonNotReady", instance="s1", severity="critical"),
        alert("TritonNotReady", instance="s2", severity="critical"),
    ]
    assert alertmanager.silenced(*given) == {"ApiSlow", "TritonNotReady s1"}
    told = _CLIENT.get(f"{alertmanager.url}/api/v2/alerts?inhibited=false").json()
    assert {
        (one["labels"].get("api"), one["labels"]["severity"])
        for one in told
        if one["labels"]["alertname"] == "ApiSlow"
    } == {("log_anomaly", "critical"), ("metric_forecast", "warning")}
