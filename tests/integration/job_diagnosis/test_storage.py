"""The same storage on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from clients.results import Cause, EvidenceLine
from contract.errors import ConfigError, InputError, ServerSetupError, ServerUnavailableError
from services.job_diagnosis import schema
from services.job_diagnosis.record import JobRecord, result_id_of
from services.job_diagnosis.searching import JobFilter, Page, Trend, count_trend, search
from services.job_diagnosis.storage import Storage, UnstorableError, row_of
from services.job_diagnosis.verdicts import Verdict, add_verdict, report, training_rows
from tests.fixtures.endpoints import wait_until
from tests.fixtures.fault_proxy import FaultProxy

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
LABELS = ("OOM", "Disk_Full", "GPU_Hardware_Fault")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/jobs.sqlite"
    made: str = request.getfixturevalue("postgresql").make_database()
    return made


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    opened = Storage(url)
    yield opened
    opened.close()


def record(job: str, *labels: str, hours: float = 0, **parts: Any) -> JobRecord:
    causes = tuple(
        Cause(label, 0.9, (EvidenceLine(7, f"{label} 证据 100% <b>"),), {"zh": "查", "en": "look"})
        for label in labels
    )
    made = JobRecord(
        result_id=result_id_of(job, "log"),
        job_id=job,
        log_sha256="ab" * 32,
        size_bytes=5 << 30,
        source="upload",
        cluster=None,
        node="n1",
        device=None,
        user="li",
        started_at=None,
        finished_at=None,
        received_at=NOON + timedelta(hours=hours),
        diagnosed_at=NOON + timedelta(hours=hours, seconds=1.25),
        causes=causes,
        root=labels[0] if labels else None,
        unknown=not labels,
        probabilities=dict.fromkeys(LABELS, 0.5),
        model_version="3",
        excerpt=f"log of {job}\t证据\n",
    )
    return replace(made, **parts)


def test_what_is_added_is_found_as_it_was_once(storage: Storage) -> None:
    first = record("a", "OOM", "Disk_Full", started_at=NOON, user="王 'quoted\" \\ %_")
    second = record("b")
    assert storage.add([first, second]) == 2
    assert storage.add([first, record("c"), replace(second, node="other")]) == 1
    assert storage.find(first.result_id) == first.without_excerpt()
    assert storage.find(second.result_id) == second.without_excerpt()
    assert storage.find("nobody") is None
    assert storage.of_job("a", 10) == [first.without_excerpt()]
    assert storage.known([first.result_id, "nobody"]) == {first.result_id}


def test_searching(storage: Storage) -> None:
    storage.add(
        [
            record("a", "OOM", hours=0),
            record("b", "Disk_Full", "OOM", hours=1, node="n2", cluster="x"),
            record("c", hours=2, user="wang"),
            record("d", "GPU_Hardware_Fault", hours=40, finished_at=NOON - timedelta(days=3)),
        ]
    )

    def found(**given: Any) -> str:
        records, _ = search(storage, Page(**given))
        return "".join(one.job_id for one in records)

    assert found() == "dcba"
    assert found(cause="OOM") == "ba"
    assert found(cause="OOM", node="n2") == "b"
    assert found(user="wang") == "c"
    assert found(unknown=True) == "c"
    assert found(cluster="x") == "b"
    assert found(since=NOON + timedelta(hours=1)) == "cb"
    assert found(until=NOON) == "d"
    assert found(until=NOON.astimezone().isoformat()) == "d"
    assert found(q="证据 oom") == "ba"
    assert found(q="100%") == "dba"
    assert found(q="10_%") == ""
    records, cursor = search(storage, Page(limit=3))
    assert (len(records), cursor is None) == (3, False)
    records, last = search(storage, Page(limit=3, cursor=cursor))
    assert ([one.job_id for one in records], last) == (["a"], None)
    with pytest.raises(InputError, match="cursor"):
        search(storage, Page(cursor="djE6OTk5OTk5OTk5OTk5OTk5OTk5OTk5"))


def test_trends(storage: Storage) -> None:
    storage.add(
        [
            record("a", "OOM"),
            record("b", "Disk_Full", "OOM", hours=13, node="n2"),
            record("c", hours=13, node=None),
            record("d", hours=13, unknown=False),
        ]
    )

    def rows(**given: Any) -> set[tuple[Any, ...]]:
        found, more = count_trend(storage, Trend(**given))
        assert not more
        return {tuple(row.values()) for row in found}

    assert rows(by="cause") == {("OOM", 2), ("Disk_Full", 1), ("unknown", 1), ("none", 1)}
    assert rows(by="day") == {("2026-03-05", 1), ("2026-03-06", 3)}
    assert rows(by="node,cause", cause="OOM") == {("n1", "OOM", 1), ("n2", "OOM", 1)}
    assert rows(by="node", until=NOON + timedelta(hours=1)) == {("n1", 1)}
    assert (None, 1) in rows(by="node")
    assert count_trend(storage, Trend(by="cause", limit=2))[1]


def test_the_newest_verdict_of_a_result_counts(storage: Storage) -> None:
    first, second = record("a", "OOM"), record("b", "OOM")
    storage.add([first, second])
    add_verdict(storage, first, Verdict(verdict="wrong", labels=("Disk_Full",)))
    add_verdict(storage, first, Verdict(verdict="right", by="li\0", note="it's"))
    add_verdict(storage, second, Verdict(verdict="wrong", labels=("Disk_Full", "OOM")))
    assert list(training_rows(storage))[1:] == [
        "OOM\tlog of a\\t证据\\n\n",
        "Disk_Full,OOM\tlog of b\\t证据\\n\n",
    ]
    figures = report(storage)
    assert (figures["verdicts"], figures["right_share"], figures["root_share"]) == (2, 0.5, 0.5)
    assert figures["micro_precision"] == 1.0
    assert figures["micro_recall"] == pytest.approx(2 / 3, abs=1e-4)
    with pytest.raises(UnstorableError):
        add_verdict(storage, record("never stored", "OOM"), Verdict(verdict="right"))


def test_old_results_go_unless_somebody_judged_them(storage: Storage) -> None:
    old, judged, new = record("a"), record("b", "OOM"), record("c", hours=50)
    storage.add([old, judged, new])
    add_verdict(storage, judged, Verdict(verdict="right"))
    assert storage.forget(1, NOON + timedelta(hours=60)) == 1
    assert [one.job_id for one in search(storage, Page())[0]] == ["c", "b"]


def test_many_at_once_make_the_tables_once_and_lose_nothing(url: str) -> None:
    """As two services that start on one database do."""
    opened = [Storage(url) for _ in range(4)]
    counts: list[int] = []

    def add(number: int) -> None:
        for step in range(10):
            counts.append(opened[number].add([record(f"{step}"), record(f"{number}-{step}")]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 50
    assert opened[0].read(sa.select(sa.func.count()).select_from(schema.causes)) == [{"count_1": 0}]
    assert len(opened[0].read(sa.select(schema.results.c.seq))) == 50
    for one in opened:
        one.close()


def test_one_bad_row_takes_none_with_it_and_says_so(storage: Storage) -> None:
    with pytest.raises(UnstorableError):
        storage.add([record("a"), record("b", job_id=None)])
    assert search(storage, Page())[0] == []


def test_a_newer_database_is_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE results ADD COLUMN later INTEGER")

    opened = Storage(url)
    opened.add([record("a")])
    opened.close()
    with monkeypatch.context() as newer:
        newer.setattr(schema, "STEPS", (*schema.STEPS, later))
        upgraded = Storage(url)
        upgraded.add([record("b")])
        rows = upgraded.read(sa.text("SELECT later FROM results"))  # type: ignore[arg-type]
        assert rows == [{"later": None}, {"later": None}]
        upgraded.close()
    old = Storage(url)
    with pytest.raises(ServerSetupError, match="newer"):
        old.prepare()
    old.close()


def test_away_is_said_and_mended(
    postgresql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Storage(postgresql.make_database())
    opened.add([record("a")])
    postgresql.stop()
    try:
        for ask in (lambda: opened.find("x"), lambda: opened.add([record("b")])):
            with pytest.raises(ServerUnavailableError, match="database") as raised:
                ask()
            assert "INSERT" not in str(raised.value)
    finally:
        postgresql.start()
    assert opened.add([record("a"), record("b")]) == 1
    opened.close()


def test_what_a_lost_connection_had_begun_does_not_hold_the_same_row_up(postgresql: Any) -> None:
    """PostgreSQL still has that transaction open; the row again would wait for its end for ever."""
    user, _, rest = postgresql.make_database().rpartition("@")
    with FaultProxy(rest.partition("/")[0]) as proxy:
        storage = Storage(f"{user}@{proxy.address}/{rest.partition('/')[2]}", answer_seconds=1.0)
        storage.prepare()

        def lose_it(connection: sa.Connection) -> None:
            connection.execute(sa.insert(schema.results).values(**row_of(record("a"))))
            proxy.set("black_hole")
            connection.execute(sa.text("SELECT 1"))

        with pytest.raises(ServerUnavailableError):
            storage.write(lose_it)
        proxy.set("pass")
        added: list[int] = []

        def add() -> bool:
            with contextlib.suppress(ServerUnavailableError):
                added.append(storage.add([record("a")]))
            return bool(added)

        wait_until(add, seconds=10, what="the same row stored")
        assert added == [1]
        storage.close()


@pytest.mark.parametrize("bad", ["mysql://x/y", "no url", "sqlite://", "postgresql+no://x"])
def test_urls_that_name_no_database(bad: str) -> None:
    with pytest.raises(ConfigError, match="PRESAGE_JOBS_DATABASE_URL"):
        Storage(bad)


def test_filters_read_times_as_people_write_them() -> None:
    since = JobFilter.model_validate({"since": "36h"}).since
    assert since is not None
    assert abs((datetime.now(UTC) - since).total_seconds() - 36 * 3600) < 60
    assert JobFilter.model_validate({"until": "2026-03-05"}).until == NOON.replace(hour=0)
