"""What is diagnosed is stored once and told once, whoever is away in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from contract.errors import ConfigError, ServerUnavailableError
from services.job_diagnosis import results as module
from services.job_diagnosis.record import JobRecord
from services.job_diagnosis.results import ResultBook
from services.job_diagnosis.storage import Storage, UnstorableError
from services.job_diagnosis.telemetry import Telemetry
from tests.fixtures.endpoints import wait_until

MakeRecord = Callable[..., JobRecord]


class FailingStorage(Storage):
    """SQLite that is away, or refuses a job, as told."""

    away = False
    refused = ""

    def add(self, records: Sequence[JobRecord]) -> int:
        self._fail()
        if self.refused in [record.job_id for record in records]:
            raise UnstorableError("no")
        return super().add(records)

    def find(self, result_id: str) -> JobRecord | None:
        self._fail()
        return super().find(result_id)

    def of_job(self, job_id: str, limit: int) -> list[JobRecord]:
        self._fail()
        return super().of_job(job_id, limit)

    def _fail(self) -> None:
        if self.away:
            raise ServerUnavailableError("the database does not answer")


class Told:
    """Notices that fail as told."""

    def __init__(self) -> None:
        self.records: list[JobRecord] = []
        self.errors: list[Exception] = []
        self.tries = 0

    def announce(self, record: JobRecord) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        self.records.append(record)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LARGEST_DELAY_SECONDS", 0.02)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FailingStorage]:
    opened = FailingStorage(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def open_book(tmp_path: Path, storage: FailingStorage) -> Iterator[Callable[..., ResultBook]]:
    opened: list[ResultBook] = []

    def open_one(notices: Told, *, start: bool = True) -> ResultBook:
        book = ResultBook(tmp_path / "spool", storage, notices, Telemetry())
        opened.append(book)
        if start:
            book.start()
        return book

    yield open_one
    for book in opened:
        book.close(2.0)


def jobs(records: Sequence[JobRecord]) -> list[str]:
    return [record.job_id for record in records]


def stored(storage: Storage) -> list[str]:
    from services.job_diagnosis.searching import Page, search

    return jobs(search(storage, Page(limit=100))[0])[::-1]


def test_records_survive_a_round_trip(make_record: MakeRecord) -> None:
    record = make_record("a", user="王", started_at=None)
    assert JobRecord.unpack(record.pack()) == record
    assert b"\n" not in record.pack()


def test_kept_stored_and_told_once(
    open_book: Callable[..., ResultBook], storage: FailingStorage, make_record: MakeRecord
) -> None:
    told = Told()
    book = open_book(told)
    records = [make_record(f"job-{n}") for n in range(5)]
    book.keep(records[:3])
    book.keep(records[2:])
    book.keep(records)
    assert book.flush(10)
    wait_until(lambda: len(told.records) >= 5)
    assert stored(storage) == jobs(told.records) == [f"job-{n}" for n in range(5)]
    assert book.find(records[0].result_id) == records[0].without_excerpt()
    assert book.of_job("job-4") == [records[4].without_excerpt()]
    assert book.known([records[0].result_id, "other"]) == {records[0].result_id}


def test_while_the_database_is_away_results_are_known_and_told(
    open_book: Callable[..., ResultBook], storage: FailingStorage, make_record: MakeRecord
) -> None:
    storage.away = True
    told = Told()
    book = open_book(told)
    records = [make_record(f"job-{n}") for n in range(3)]
    book.keep(records)
    wait_until(lambda: len(told.records) == 3 and book.trouble)
    assert book.find(records[1].result_id) == records[1].without_excerpt()
    assert jobs(book.of_job("job-2")) == ["job-2"]
    for ask in (lambda: book.find("other"), lambda: book.of_job("other")):
        with pytest.raises(ServerUnavailableError):
            ask()
    book.close(0.1)
    # As after a kill: another process, which knows what waits.
    later = Told()
    second = open_book(later, start=False)
    assert second.find(records[1].result_id) == records[1].without_excerpt()
    second.keep(records)
    storage.away = False
    second.start()
    assert second.flush(10)
    assert stored(storage) == ["job-0", "job-1", "job-2"]
    assert later.records == []


def test_notices_wait_for_who_is_away_and_one_bad_one_stops_no_other(
    open_book: Callable[..., ResultBook], make_record: MakeRecord, tmp_path: Path
) -> None:
    told = Told()
    away: list[Exception] = [ServerUnavailableError("webhook")] * 3
    surprises: list[Exception] = [RuntimeError("a bug")] * 5
    told.errors = [*away, ConfigError("no channel"), *surprises]
    book = open_book(told)
    book.keep([make_record(f"job-{n}") for n in range(4)])
    wait_until(lambda: len(told.records) == 2)
    assert jobs(told.records) == ["job-2", "job-3"]
    assert told.tries == 3 + 1 + 5 + 2
    aside = (tmp_path / "spool" / "announce_refused.jsonl").read_bytes().splitlines()
    assert jobs([JobRecord.unpack(one) for one in aside]) == ["job-0", "job-1"]


def test_what_a_dead_process_did_not_tell_the_next_one_tells(
    open_book: Callable[..., ResultBook], make_record: MakeRecord
) -> None:
    first = open_book(Told(), start=False)
    first.keep([make_record("a"), make_record("b")])
    first.close(0.1)
    told = Told()
    second = open_book(told)
    # Killed between keeping a result and dropping its log: it is diagnosed again.
    second.keep([make_record("a"), make_record("b")])
    wait_until(lambda: len(told.records) == 2)
    assert second.flush(10)
    assert jobs(told.records) == ["a", "b"]


def test_a_row_that_the_database_refuses_stops_no_other(
    open_book: Callable[..., ResultBook],
    storage: FailingStorage,
    make_record: MakeRecord,
    tmp_path: Path,
) -> None:
    storage.refused = "bad"
    book = open_book(Told(), start=False)
    book.keep([make_record(name) for name in ("a", "bad", "b")])
    book.start()
    assert book.flush(10)
    assert stored(storage) == ["a", "b"]
    aside = (tmp_path / "spool" / "store_refused.jsonl").read_bytes()
    assert JobRecord.unpack(aside).job_id == "bad"
