"""Accepted logs are diagnosed together, again when the server was away, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from clients import Diagnosis, TrainFailureRCAClient
from clients.results import Cause, EvidenceLine
from contract.errors import (
    OverloadedError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
    UnknownModelError,
)
from services.job_diagnosis import diagnosing
from services.job_diagnosis.accepted import AcceptedLog, AcceptedLogs
from services.job_diagnosis.culprit import find_culprit
from services.job_diagnosis.diagnosing import Diagnoser, PostponedError
from services.job_diagnosis.record import JobRecord
from tests.fixtures.endpoints import wait_until

MakeLog = Callable[..., AcceptedLog]
XID = "Jun 14 15:16:01 gpu-17 kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus"


class Server:
    """A model client: each log's last line is its evidence; fails as told."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.errors: list[PresageError | Exception] = []
        self.poison = b""

    def diagnose(self, logs: Sequence[bytes]) -> list[Diagnosis]:
        self.asked.append(list(logs))
        if self.errors:
            raise self.errors.pop(0)
        if self.poison and self.poison in logs:
            raise ServerAnswerError("nonsense")
        found = []
        for log in logs:
            lines = log.decode().split("\n")
            line = EvidenceLine(len(lines), lines[-1])
            cause = Cause("GPU_Hardware_Fault", 0.9, (line,), {"en": "cordon"})
            found.append(Diagnosis([cause], cause.label, False, {cause.label: 0.9}, "4"))
        return found


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosing, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(diagnosing, "_LARGEST_DELAY_SECONDS", 0.02)


class Bench:
    """A diagnoser with what surrounds it."""

    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.accepted = AcceptedLogs(folder, limit_bytes=64 << 20)
        self.kept: list[JobRecord] = []
        self.keep_errors: list[PresageError] = []
        self.made: list[Diagnoser] = []

    def keep(self, records: Sequence[JobRecord]) -> None:
        if self.keep_errors:
            raise self.keep_errors.pop(0)
        self.kept += records

    def diagnoser(self) -> Diagnoser:
        client = cast(TrainFailureRCAClient, self.server)
        self.made.append(Diagnoser(client, self.accepted, self.keep))
        return self.made[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for diagnoser in made.made:
        diagnoser.stop(5)


def put(bench: Bench, logs: Sequence[AcceptedLog]) -> list[str]:
    for log in logs:
        bench.accepted.put(log)
    return [log.facts.result_id for log in logs]


def test_small_logs_are_asked_about_together(bench: Bench, make_log: MakeLog) -> None:
    put(bench, [make_log(f"job-{n}", b"boom %d" % n) for n in range(20)])
    diagnoser = bench.diagnoser()
    diagnoser.start(1)
    wait_until(lambda: len(bench.kept) == 20)
    assert [len(logs) for logs in bench.server.asked] == [8, 8, 4]
    assert [record.job_id for record in bench.kept] == [f"job-{n}" for n in range(20)]
    wait_until(lambda: len(bench.accepted) == 0)


def test_large_logs_are_asked_about_alone(bench: Bench, make_log: MakeLog) -> None:
    put(bench, [make_log(f"job-{n}", b"x" * (3 << 20)) for n in range(3)])
    bench.diagnoser().start(1)
    wait_until(lambda: len(bench.kept) == 3)
    assert [len(logs) for logs in bench.server.asked] == [1, 1, 1]


def test_a_record_says_where_and_what(bench: Bench, make_log: MakeLog) -> None:
    log = make_log("job", b"calm\n" + XID.encode(), (7, 900_001))
    put(bench, [log])
    diagnoser = bench.diagnoser()
    future = diagnoser.join(log.facts.result_id)
    assert future is not None
    diagnoser.start(1)
    record = future.result(10)
    assert record.causes[0].evidence == (EvidenceLine(900_001, XID),)
    assert (record.node, record.device, record.user) == ("gpu-17", "0000:3b:00", "li")
    assert (record.root, record.model_version) == ("GPU_Hardware_Fault", "4")
    assert record.excerpt == "calm\n" + XID


def test_who_waits_is_told_at_once_that_the_server_is_away(bench: Bench, make_log: MakeLog) -> None:
    bench.server.errors = [
        ServerUnavailableError("away"),
        UnknownModelError("not loaded"),
        OverloadedError("full"),
    ]
    bench.keep_errors = [OverloadedError("disk full")]
    ids = put(bench, [make_log("a"), make_log("b")])
    diagnoser = bench.diagnoser()
    futures = [diagnoser.join(name) for name in ids]
    diagnoser.start(1)
    for future in futures:
        assert future is not None
        with pytest.raises(PostponedError):
            future.result(10)
    wait_until(lambda: len(bench.kept) == 2)
    assert len(bench.server.asked) == 5
    wait_until(lambda: diagnoser.trouble is None)
    assert diagnoser.join(ids[0]) is None


def test_one_log_that_the_server_cannot_read_spoils_no_other(
    bench: Bench, make_log: MakeLog, tmp_path: Path
) -> None:
    bench.server.poison = b"poison"
    logs = [make_log("a"), make_log("bad", b"poison"), make_log("b")]
    ids = put(bench, logs)
    diagnoser = bench.diagnoser()
    future = diagnoser.join(ids[1])
    assert future is not None
    diagnoser.start(1)
    with pytest.raises(ServerAnswerError):
        future.result(10)
    wait_until(lambda: len(bench.kept) == 2)
    assert (tmp_path / "refused" / f"{ids[1]}.reason").read_text() == "nonsense"
    wait_until(lambda: len(bench.accepted) == 0)


def test_a_bug_is_no_reason_to_stop(bench: Bench, make_log: MakeLog) -> None:
    bench.server.errors = [RuntimeError("a bug")]
    put(bench, [make_log("a")])
    diagnoser = bench.diagnoser()
    diagnoser.start(1)
    wait_until(lambda: len(bench.kept) == 1)
    assert diagnoser.is_alive


def test_stopping_leaves_the_rest_for_the_next_start(bench: Bench, make_log: MakeLog) -> None:
    entered, leave = threading.Event(), threading.Event()
    diagnose = bench.server.diagnose

    def slowly(logs: Sequence[bytes]) -> list[Diagnosis]:
        entered.set()
        leave.wait(10)
        return diagnose(logs)

    bench.server.diagnose = slowly  # type: ignore[method-assign]
    ids = put(bench, [make_log(f"job-{n}", b"x" * (3 << 20)) for n in range(2)])
    first = bench.diagnoser()
    waiting: Any = first.join(ids[1])
    first.start(1)
    assert entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    first.stop(10)
    assert [record.job_id for record in bench.kept] == ["job-0"]
    with pytest.raises(PostponedError, match="shutting down"):
        waiting.result(0)
    bench.diagnoser().start(1)
    wait_until(lambda: len(bench.kept) == 2)


@pytest.mark.parametrize(
    ("label", "line", "culprit"),
    [
        ("GPU_Hardware_Fault", XID, ("gpu-17", "0000:3b:00")),
        ("GPU_Hardware_Fault", "[rank3]: cuda:5 uncorrectable ECC", (None, "cuda:5")),
        ("GPU_Hardware_Fault", "NPU 3 掉卡", (None, "NPU 3")),
        ("GPU_Hardware_Fault", "ECC error", (None, None)),
        ("Network_Link_Flap", "mlx5_2: link down, GPU 3 waits", (None, "mlx5_2")),
        (
            "Network_Link_Flap",
            "2026-03-05T01:02:03.123456+08:00 n-9 kernel: ib0: link is not ready",
            ("n-9", "ib0"),
        ),
        ("Network_Link_Flap", "ethernet is over", (None, None)),
        ("OOM", XID, (None, None)),
    ],
)
def test_the_culprit_is_read_from_the_evidence(
    label: str, line: str, culprit: tuple[str | None, str | None]
) -> None:
    causes = [
        Cause("OOM", 0.9, (EvidenceLine(1, "GPU 7"),), {}),
        Cause(label, 0.9, (EvidenceLine(1, line),), {}),
    ]
    assert find_culprit(causes) == culprit
