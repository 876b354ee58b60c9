"""An alert's log: from where the operator allows, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ConfigError
from services.gateway.alert_logs import AlertLogs, read_job_answer, subject_of
from services.gateway.settings import GatewaySettings
from tests.fixtures.endpoints import Endpoint

JOB = {
    "job_id": "job-1",
    "results": [
        {
            "causes": [
                {
                    "label": "OOM",
                    "probability": 0.9,
                    "root": True,
                    "evidence": [{"line_number": 7, "text": "out of memory"}],
                    "action": {"en": "less", "zh": "减小"},
                }
            ],
            "root": "OOM",
            "unknown": False,
            "probabilities": {"OOM": 0.9},
            "model_version": "2",
        }
    ],
    "waiting": [],
}


def logs(**settings: Any) -> AlertLogs:
    return AlertLogs(GatewaySettings.load(no_tokens=True, **settings))


@pytest.fixture
def server() -> Iterator[Endpoint]:
    def respond(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/v1/jobs/job-1":
            return 200, json.dumps(JOB).encode()
        if path == "/large":
            return 200, b"x" * (21 << 20)
        return (200, b"log of " + path.encode()) if path.startswith("/logs/") else (404, b"")

    with Endpoint(respond) as running:
        yield running


async def test_the_text_in_the_alert() -> None:
    found = await logs().find({"job_id": "j"}, {"log": "line one\nout of memory"})
    assert (found.source, found.text) == ("annotation", b"line one\nout of memory")


@pytest.mark.parametrize("path", ["/etc/passwd", "file:///etc/passwd", "~/.ssh/id", "../x"])
async def test_a_path_in_the_alert_is_not_read(path: str) -> None:
    found = await logs().find({}, {"log": path})
    assert found.source == "none"
    assert "not read" in found.reason


async def test_only_allowed_origins_are_fetched(server: Endpoint) -> None:
    url = f"{server.url}/logs/7"
    refused = await logs().find({}, {"log": url})
    assert (refused.source, refused.text) == ("none", b"")
    allowed = logs(alert_log_origins=(server.url,))
    assert (await allowed.find({}, {"log": url})).text == b"log of /logs/7"
    for other in (
        f"{server.url.replace('://', '://user@')}/logs/7",
        f"{server.url}.evil.example/logs/7",
        f"{server.url}/large",
        f"{server.url}/missing",
    ):
        assert (await allowed.find({}, {"log": other})).source == "none", other
    await allowed.close()


async def test_a_file_by_labels_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "job-1.log").write_text("died")
    (tmp_path / "secret.log").write_text("secret")
    (tmp_path / "logs" / "link.log").symlink_to(tmp_path / "secret.log")
    finder = logs(alert_log=f"{tmp_path}/logs/{{job_id}}.log")
    found = await finder.find({"job_id": "job-1"}, {})
    assert (found.source, found.text) == ("configured", b"died")
    for name in ("../secret", "..", "link", "a/b", "", "x\0y", "missing"):
        other = await finder.find({"job_id": name}, {})
        assert (other.source, other.text) == ("none", b""), name


async def test_a_pattern_of_names_inside_a_name(tmp_path: Path) -> None:
    (tmp_path / "job-7").mkdir()
    (tmp_path / "job-7" / "rank0.log").write_text("died")
    finder = logs(alert_log=f"{tmp_path}/job-{{job_id}}/rank0.log")
    assert (await finder.find({"job_id": "7"}, {})).text == b"died"


def test_a_pattern_without_a_label_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="same for every alert"):
        logs(alert_log="/var/log/messages")


async def test_the_job_failure_service_knows(server: Endpoint) -> None:
    finder = logs(job_failure_url=server.url)
    found = await finder.find({"job_id": "job-1"}, {})
    assert found.source == "job_failure"
    assert found.diagnosis is not None
    assert found.diagnosis.causes[0].evidence[0].line_number == 7
    assert (await finder.find({"job_id": "job-2"}, {})).source == "none"
    assert (await finder.find({"node": "gpu-1"}, {})).source == "none"
    await finder.close()


def test_what_an_alert_is_about() -> None:
    assert subject_of({"instance": "a:9100", "job": "node", "job_id": "7"}) == ("job_id", "7")
    assert subject_of({"instance": "a:9100", "job": "node"}) == ("instance", "a:9100")
    assert subject_of({"job": "node"}) == ("", "")
    assert read_job_answer(b'{"results": []}') is None
