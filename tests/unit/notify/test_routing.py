"""Who is told of what, how often, and that nothing is lost on the way."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import ConfigError, ServerSetupError
from services.notify.causes import CauseTable, default_causes
from services.notify.config import EXAMPLE, NotifyConfig, load_notify_config
from services.notify.notification import Notification
from services.notify.outbox import Outbox
from tests.fixtures.notify_desk import SRE, USER, Desk, count_in

MakeDesk = Callable[..., Desk]


def test_hardware_pages_the_sre_and_code_only_the_user(make_desk: MakeDesk) -> None:
    desk = make_desk(SRE, USER)
    told = {
        cause: desk.notify(cause, f"job-{cause}")
        for cause in default_causes()
        if cause != "unknown"
    }
    hardware = {"GPU_Hardware_Fault", "Network_Link_Flap"}
    assert {cause for cause, channels in told.items() if "sre" in channels} == hardware
    assert all("user" in channels for channels in told.values())


def test_routes_by_cause_severity_and_table(make_desk: MakeDesk) -> None:
    desk = make_desk(
        SRE,
        {**SRE, "name": "all", "minimum_severity": "info"},
        {**USER, "name": "network", "causes": ["Network_*"]},
        cause={"Disk_Full": {"sre": "warning"}, "New_Label": {"sre": "critical", "zh": "新"}},
    )
    assert desk.notify("Disk_Full", "a") == ["sre", "all"]
    assert desk.notify("Storage_Quota", "b") == ["all"]
    assert desk.notify("Network_Timeout", "c") == ["all", "network"]
    assert desk.notify("New_Label", "d") == ["sre", "all"]
    assert desk.notify("A_Label_Of_Tomorrow", "e") == ["all"]
    assert desk.notify("Model_Code_Error", "f", severities={"sre": "critical"}) == ["sre", "all"]
    assert desk.notify("GPU_Hardware_Fault", "g", severities={"sre": "none"}) == []


def test_a_row_of_the_settings_keeps_what_it_leaves_out() -> None:
    config = NotifyConfig.model_validate({"cause": {"Disk_Full": {"sre": "critical"}}})
    assert config.table().name("Disk_Full", "zh") == "磁盘已满"
    assert CauseTable().name("Disk_Full", "en") == "disk full"


def test_the_same_job_and_cause_is_told_once_also_after_a_restart(make_desk: MakeDesk) -> None:
    desk = make_desk(USER)
    assert desk.notify("OOM", "job-1") == ["user"]
    assert desk.notify("OOM", "job-1") == []
    desk.run(60)
    desk.notifier.close()
    desk.notifier = desk.open()
    assert desk.notify("OOM", "job-1") == []
    assert desk.notify("Disk_Full", "job-1") == ["user"]
    assert desk.metric("notifications_total", channel="user", outcome="duplicate") == 1
    desk.now += 25 * 3600
    assert desk.notify("OOM", "job-1") == ["user"]


def test_a_node_that_fails_many_jobs_is_told_once_and_then_summed(make_desk: MakeDesk) -> None:
    desk = make_desk({**SRE, "burst": 100})
    for number in range(13):
        desk.notify(subject=f"job-{number}", node="n1")
    desk.notify(subject="job-x", node="n2")
    desk.notify("Network_Link_Flap", subject="job-y", node="n1")
    desk.step()
    sent = desk.memories["sre"].sent
    assert len(sent) == 3
    desk.step(599)
    assert len(sent) == 3
    desk.step(2)
    assert len(sent) == 4
    assert sent[-1][0].title == "[Presage] GPU hardware fault · and 12 more jobs · n1"
    assert all(f"job-{n}\n" in sent[-1][0].body + "\n" for n in range(1, 13))
    # It goes on: the next window is summed as well, and a quiet one ends it.
    desk.notify(subject="late", node="n1")
    desk.step()
    assert len(sent) == 4
    desk.step(601)
    assert len(sent) == 5
    desk.notify(subject="much later", node="n1")
    desk.step()
    assert "much later" in sent[-1][0].body


def test_users_are_summed_by_themselves(make_desk: MakeDesk) -> None:
    desk = make_desk({**USER, "burst": 100})
    for user in ("ann", "bo"):
        for number in range(3):
            desk.notify("OOM", subject=f"{user}-{number}", user=user, node="n1")
    desk.step()
    assert len(desk.memories["user"].sent) == 2
    desk.step(601)
    titles = [message.title for message, _ in desk.memories["user"].sent[2:]]
    assert titles == [
        "[Presage] host memory ran out · and 2 more jobs · ann",
        "[Presage] host memory ran out · and 2 more jobs · bo",
    ]


def test_what_the_rate_holds_back_is_summed_up(make_desk: MakeDesk) -> None:
    desk = make_desk({**SRE, "burst": 3, "per_minute": 1})
    for number in range(50):
        desk.notify(subject=f"job-{number}", node=f"n{number}")
    desk.step()
    sent = desk.memories["sre"].sent
    assert len(sent) == 3
    assert [count_in(sent[-1][0].title)] == [48]
    for number in range(7):
        desk.notify("Network_Link_Flap", subject=f"more-{number}", node=f"n{number}")
    wait = desk.step()
    assert len(sent) == 3
    assert 0 < wait <= 30
    desk.run(61)
    assert len(sent) == 4
    assert count_in(sent[-1][0].title) == 7
    assert desk.metric("told_total", channel="sre") == 57
    assert desk.metric("messages_total", channel="sre", kind="held") == 2


def test_the_most_severe_is_told_first(make_desk: MakeDesk) -> None:
    desk = make_desk({**SRE, "burst": 2, "minimum_severity": "info"})
    for number in range(5):
        desk.notify("Disk_Full", subject=f"disk-{number}")
    desk.notify("GPU_Hardware_Fault", subject="gpu")
    desk.step()
    first, second = (message for message, _ in desk.memories["sre"].sent)
    assert "gpu" in first.body
    assert first.severity == "critical"
    assert count_in(second.title) == 5


def test_an_outage_loses_nothing_and_is_told_of_with_patience(make_desk: MakeDesk) -> None:
    desk = make_desk({**SRE, "burst": 100})
    memory = desk.memories["sre"]
    memory.failing = 5
    for number in range(4):
        desk.notify(subject=f"job-{number}", node=f"n{number}")
    desk.step()
    assert memory.sent == []
    assert memory.failing == 4
    desk.step(0.5)
    assert memory.failing == 4, "it was asked again before its delay was over"
    desk.run(3600)
    assert sorted(body.split("\n")[0] for body in memory.bodies) == [
        f"job: job-{number}" for number in range(4)
    ]
    assert desk.metric("failures_total", channel="sre", reason="unavailable") == 5


def test_one_message_that_is_never_taken_does_not_stop_the_others(make_desk: MakeDesk) -> None:
    desk = make_desk({**SRE, "burst": 100}, give_up_after_hours=1)
    memory = desk.memories["sre"]
    memory.poison = "job-0"
    for number in range(5):
        desk.notify(subject=f"job-{number}", node=f"n{number}")
    desk.run(120)
    assert len(memory.sent) == 4
    desk.run(3700)
    assert desk.metric("given_up_total", channel="sre") == 1
    outbox = Outbox(desk.settings.outbox)
    assert outbox.problems()[0][1] == "failed"
    memory.poison = None
    assert outbox.retry_failed(desk.now) == 1
    outbox.close()
    desk.run(60)
    assert len(memory.sent) == 5


def test_an_outbox_that_is_full_still_counts(make_desk: MakeDesk) -> None:
    desk = make_desk(SRE, outbox_limit=10)
    desk.memories["sre"].failing = 1
    for number in range(25):
        desk.notify(subject=f"job-{number}", node=f"n{number}")
    desk.run(10)
    assert desk.metric("notifications_total", channel="sre", outcome="beyond_limit") == 15
    total = [count_in(m.title) for m, _ in desk.memories["sre"].sent if "told as one" in m.title]
    singles = len([m for m, _ in desk.memories["sre"].sent if "told as one" not in m.title])
    assert sum(total) + singles == 25


def test_one_process_sends_and_others_only_add(make_desk: MakeDesk) -> None:
    desk = make_desk(SRE)
    desk.step()
    other = desk.open()
    other.notify(Notification(cause="GPU_Hardware_Fault", subject="job", created_at=desk.now))
    other.step()
    assert desk.memories["sre"].sent == []
    desk.step()
    assert len(desk.memories["sre"].sent) == 1
    other.close()


def test_what_was_told_is_forgotten_when_it_may_be(make_desk: MakeDesk) -> None:
    desk = make_desk(SRE)
    desk.notify(subject="job-1", node="n1")
    desk.run(3600)
    counts = [desk.notifier._outbox.counts()]
    desk.run(25 * 3600)
    counts.append(desk.notifier._outbox.counts())
    assert counts == [{("sre", "told"): 1}, {}]


def test_an_outbox_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ServerSetupError, match="outbox"):
        Outbox(path)


def test_resolved_is_told_beside_firing(make_desk: MakeDesk) -> None:
    desk = make_desk(SRE)
    alert = {"kind": "alert", "severities": {"sre": "critical"}}
    assert desk.notify("NodeDown", "n1", **alert) == ["sre"]
    assert desk.notify("NodeDown", "n1", resolved=True, **alert) == ["sre"]
    desk.step()
    assert "resolved" in desk.memories["sre"].sent[1][0].title


@pytest.mark.parametrize(
    ("channel", "says"),
    [
        ({"name": "a", "audience": "sre"}, "either url or url_file"),
        ({"name": "a/b", "audience": "sre", "url": "json://x"}, "name"),
        ({"name": "a", "audience": "boss", "url": "json://x"}, "audience"),
        ({"name": "alertmanager", "audience": "sre", "url": "json://x"}, "taken"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, channel: dict[str, str], says: str) -> None:
    path = tmp_path / "notify.toml"
    rows = "\n".join(f'{name} = "{value}"' for name, value in channel.items())
    path.write_text(f"[[channel]]\n{rows}\n")
    with pytest.raises(ConfigError, match=says):
        load_notify_config(path)


def test_the_example_can_be_loaded(repository_root: Path) -> None:
    text = (repository_root / EXAMPLE).read_text("utf-8")
    load_notify_config(repository_root / EXAMPLE)
    # A comment that is a setting or a table is one that somebody will uncomment.
    uncommented = re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
    config = NotifyConfig.model_validate(tomllib.loads(uncommented))
    assert len(config.channel) == 2
    assert config.alertmanager is not None
