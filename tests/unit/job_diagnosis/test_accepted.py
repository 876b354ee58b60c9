"""What is accepted is on the disk, whole, until it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from contract.errors import OverloadedError, ServerSetupError
from services.job_diagnosis.accepted import AcceptedLog, AcceptedLogs

MakeLog = Callable[..., AcceptedLog]


def test_a_later_start_finds_what_is_not_done(tmp_path: Path, make_log: MakeLog) -> None:
    logs = [make_log(f"job-{n}", b"line\n\0\xff" * n, (1, 5, 2**40)) for n in range(1, 5)]
    accepted = AcceptedLogs(tmp_path, limit_bytes=1 << 20)
    for log in logs:
        accepted.put(log)
    accepted.done(logs[0].facts.result_id)
    accepted.refuse(logs[1].facts.result_id, "unreadable")
    (tmp_path / "killed.partial").write_bytes(b"half")
    again = AcceptedLogs(tmp_path, limit_bytes=1 << 20)
    assert again.ids() == [log.facts.result_id for log in logs[2:]]
    found = again.load(logs[2].facts.result_id)
    assert (found.facts, found.text) == (logs[2].facts, logs[2].text)
    assert list(found.line_numbers) == [1, 5, 2**40]
    assert again.of_job("job-3") == [logs[2].facts]
    assert again.of_job("job-1") == []
    assert not list(tmp_path.glob("*.partial"))
    assert (tmp_path / "refused" / f"{logs[1].facts.result_id}.log").is_file()
    assert again.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.log"))


def test_a_full_spool_keeps_what_it_has(tmp_path: Path, make_log: MakeLog) -> None:
    accepted = AcceptedLogs(tmp_path, limit_bytes=4_000)
    accepted.put(make_log("a", b"x" * 3_000))
    with pytest.raises(OverloadedError, match="later"):
        accepted.put(make_log("b", b"x" * 3_000))
    assert [facts.job_id for facts in accepted.of_job("a")] == ["a"]
    accepted.done(accepted.ids()[0])
    accepted.put(make_log("b", b"x" * 3_000))
    assert len(accepted) == 1


def test_a_disk_that_refuses_is_told(tmp_path: Path, make_log: MakeLog) -> None:
    accepted = AcceptedLogs(tmp_path / "a", limit_bytes=4_000)
    (tmp_path / "a" / "refused").rmdir()
    (tmp_path / "a").rmdir()
    with pytest.raises(OverloadedError, match="disk"):
        accepted.put(make_log("a"))
    assert len(accepted) == 0
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServerSetupError, match="--spool"):
        AcceptedLogs(tmp_path / "file", limit_bytes=4_000)


def test_the_oldest_that_waits_is_known_also_after_a_start(
    tmp_path: Path, make_log: MakeLog
) -> None:
    accepted = AcceptedLogs(tmp_path, limit_bytes=1 << 20)
    assert accepted.oldest_received_at() is None
    logs = []
    for minutes in (5, 9, 2):
        log = make_log(f"job-{minutes}", b"line")
        then = log.facts.received_at - timedelta(minutes=minutes)
        logs.append(replace(log, facts=replace(log.facts, received_at=then)))
        accepted.put(logs[-1])
    again = AcceptedLogs(tmp_path, limit_bytes=1 << 20)
    for known in (accepted, again):
        assert known.oldest_received_at() == logs[1].facts.received_at
    again.done(logs[1].facts.result_id)
    assert again.oldest_received_at() == logs[0].facts.received_at
