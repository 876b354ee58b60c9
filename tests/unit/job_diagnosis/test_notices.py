"""Of a diagnosis: who is told, what, and what becomes an alert."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ConfigError, ServerUnavailableError
from services.alertmanager import Alertmanager
from services.job_diagnosis.announcing import NoNotices
from services.job_diagnosis.notices import JobNotices, NoticeSettings, make_notices
from services.job_diagnosis.record import JobRecord
from services.notify.config import NotifyConfig
from services.notify.notifier import Notifier
from tests.fixtures.endpoints import Endpoint
from tests.fixtures.job_record import NOW, cause, record
from tests.fixtures.notify_desk import Memory

XID = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."


class Office:
    """Both audiences, and an Alertmanager that answers ``status``."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW.timestamp() + 5.0
        self.status = 200
        self.alerts: list[dict[str, Any]] = []
        self.memories = {"sre": Memory(), "user": Memory()}
        self.endpoint = Endpoint(self._posted)
        config = NotifyConfig.model_validate(
            {
                "outbox": folder / "outbox.sqlite",
                "alertmanager": {"url": self.endpoint.url, "hold_minutes": 30},
                "cause": {"Network_Link_Flap": {"sre": "none"}},
                "channel": [
                    {"name": n, "audience": n, "url": "json://x", "language": "en", "burst": 100}
                    for n in self.memories
                ],
            }
        )
        self.notifier = Notifier(
            config, senders=dict(self.memories), clock=lambda: self.now, start=False
        )
        self.notices = JobNotices(self.notifier, "https://presage.example/jobs/{job_id}")

    def _posted(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.status == 200:
            self.alerts += json.loads(body)
        return self.status, b""

    def announce(self, *records: JobRecord) -> None:
        for one in records:
            self.notices.announce(one)
        self.notifier.step()

    def bodies(self, name: str) -> list[str]:
        return self.memories[name].bodies


@pytest.fixture
def office(tmp_path: Path) -> Any:
    made = Office(tmp_path)
    with made.endpoint:
        yield made
        made.notices.close()


def test_hardware_is_the_sres_and_an_alert_with_node_and_device(office: Office) -> None:
    office.announce(record(cause("GPU_Hardware_Fault", XID), cause("Network_Timeout")))
    assert len(office.bodies("sre")) == len(office.bodies("user")) == 1
    body = office.bodies("sre")[0]
    for line in (
        "job: job-7",
        "cause: GPU hardware fault",
        "node: gpu-7",
        "user: ann",
        "probability: 0.93",
        "other causes: Network_Timeout (0.93)",
        "device: 0000:3b:00",
        "what to do: Use other nodes",
        f"  10: {XID}",
        "details: https://presage.example/jobs/job-7",
    ):
        assert line in body.split("\n")
    [alert] = office.alerts
    assert alert["labels"] == {
        "alertname": "TrainingHardwareFault",
        "cause": "GPU_Hardware_Fault",
        "severity": "critical",
        "cluster": "bj1",
        "node": "gpu-7",
        "device": "0000:3b:00",
    }
    summary = "GPU hardware fault on gpu-7 0000:3b:00 killed job job-7"
    assert alert["annotations"]["summary"] == summary
    assert alert["startsAt"] == "2026-11-28T09:00:00+00:00"
    assert alert["endsAt"] == "2026-11-28T09:30:05+00:00"


def test_code_is_the_users_alone(office: Office) -> None:
    office.announce(record(cause("Model_Code_Error", "KeyError"), cause("GPU_Hardware_Fault")))
    assert office.bodies("sre") == []
    assert len(office.bodies("user")) == 1
    assert office.alerts == []


def test_unknown_shows_the_end_of_the_log(office: Office) -> None:
    lines = "\n".join(f"line {n}" for n in range(50))
    office.announce(record(unknown=True, excerpt=lines))
    [body] = office.bodies("user")
    assert "cause: no known cause" in body
    assert "  line 49" in body
    assert "  line 38" in body
    assert "line 37" not in body
    assert "verdict" in body
    assert office.bodies("sre") == []


def test_a_job_that_did_not_fail_is_not_told(office: Office) -> None:
    office.announce(record())
    assert office.bodies("user") == []


def test_what_comes_again_is_told_once(office: Office) -> None:
    same = record(cause("GPU_Hardware_Fault", XID))
    office.announce(same, same)
    office.announce(same)
    assert len(office.bodies("sre")) == 1
    assert len(office.alerts) == 1


def test_jobs_of_one_device_are_one_alert(office: Office) -> None:
    office.announce(
        *(record(cause("GPU_Hardware_Fault", XID), job_id=f"job-{n}") for n in range(3))
    )
    assert len({json.dumps(alert["labels"]) for alert in office.alerts}) == 1
    office.now += 660.0
    office.notifier.step()
    assert "job-2" in office.bodies("sre")[-1]


def test_an_alert_that_waited_has_not_ended(office: Office) -> None:
    office.status = 503
    office.announce(record(cause("GPU_Hardware_Fault", XID)))
    assert office.alerts == []
    assert len(office.bodies("sre")) == 1, "people are told whatever Alertmanager does"
    office.status = 200
    office.now += 7200.0
    office.notifier.step()
    [alert] = office.alerts
    assert datetime.fromisoformat(alert["endsAt"]).timestamp() == office.now + 1800.0


def test_who_silences_a_cause_gets_no_alert_of_it(office: Office) -> None:
    office.announce(record(cause("Network_Link_Flap", "mlx5_0 link down")))
    assert office.alerts == []
    assert len(office.bodies("user")) == 1


def test_an_alert_holds_no_tag_and_no_mention(office: Office) -> None:
    hostile = "<script>x</script> @all <!channel> &lt;b&gt; \x1b[31m \u202e"
    office.announce(
        record(cause("GPU_Hardware_Fault", hostile), job_id=hostile, node=hostile, user=hostile)
    )
    sent = json.dumps(office.alerts, ensure_ascii=False)
    assert "x＜/script>" in sent
    for mark in ("<script", "@", "<!", "&lt;", "\\u001b", "\u202e"):
        assert mark not in sent


def test_alertmanagers_password_is_not_told() -> None:
    alertmanager = Alertmanager("http://ann:hunter22@127.0.0.1:9")
    with pytest.raises(ServerUnavailableError) as raised:
        alertmanager.post([])
    assert "hunter22" not in str(raised.value)
    assert "127.0.0.1:9" in str(raised.value)
    alertmanager.close()


def test_an_outbox_that_cannot_be_written_is_told_to_the_caller(office: Office) -> None:
    office.notifier._outbox._database.execute("DROP TABLE entries")
    with pytest.raises(ServerUnavailableError):
        office.notices.announce(record(cause("OOM", "Killed")))


def test_made_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_notices(NoticeSettings()), NoNotices)
    path = tmp_path / "notify.toml"
    path.write_text(f'outbox = "{tmp_path}/o"\n[[channel]]\nname = "a"\naudience = "sre"\n'
                    'url = "json://127.0.0.1:9"\n')  # fmt: skip
    monkeypatch.setenv("PRESAGE_JOBS_NOTIFY_CONFIG", str(path))
    notices = make_notices(NoticeSettings())
    assert isinstance(notices, JobNotices)
    notices.close()
    with pytest.raises(ConfigError, match="every job"):
        make_notices(NoticeSettings(job_url="https://presage.example/"))
