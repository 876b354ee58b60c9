"""``ResultBook``: what is diagnosed is on the disk at once, then stored and told by two threads."""

from __future__ import annotations

import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from contract.errors import PresageError, ServerError, ServerUnavailableError
from services.job_diagnosis.announcing import Notices
from services.job_diagnosis.record import JobRecord
from services.job_diagnosis.storage import Storage, UnstorableError
from services.job_diagnosis.telemetry import Telemetry
from services.problems import ProblemLog
from services.spool import Spool

_REMEMBERED = 20_000
_READ_BYTES = 1 << 20
_FIRST_DELAY_SECONDS = 0.5
_LARGEST_DELAY_SECONDS = 3.0
_LOG_AGAIN_SECONDS = 60.0
_LARGEST_JOB = 100
_SURPRISES = 5


class ResultBook:
    """Two queues on the disk: results to be stored, and notices to be given. The database may be
    away: results are found in memory meanwhile (the last 20,000 of them), and stored in order,
    once, when it is back.
    """

    def __init__(
        self, folder: Path, storage: Storage, notices: Notices, telemetry: Telemetry
    ) -> None:
        self._storage = storage
        self._notices = notices
        self._telemetry = telemetry
        self._journal = Spool(folder / "results")
        self._untold = Spool(folder / "notices")
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._told = {record.result_id for record in _waiting(self._untold)}
        for record in _waiting(self._journal):
            self._remember(record)
        self._storing = _QueueWorker("store", self._journal, _READ_BYTES, self._store, telemetry)
        # One at a time: what was told is committed before the next one is.
        self._telling = _QueueWorker("announce", self._untold, 1, self._announce, telemetry)

    def start(self) -> None:
        self._storing.start()
        self._telling.start()

    def close(self, seconds: float) -> None:
        for worker in (self._storing, self._telling):
            worker.stop(seconds)
        self._notices.close()
        self._journal.close()
        self._untold.close()

    @property
    def trouble(self) -> str | None:
        return self._storing.trouble or self._telling.trouble

    @property
    def is_alive(self) -> bool:
        return self._storing.is_alive() and self._telling.is_alive()

    @property
    def backlogs(self) -> dict[str, int]:
        """Bytes by queue."""
        return {
            "results": self._journal.backlog_bytes,
            "notices": self._untold.backlog_bytes,
        }

    def keep(self, records: Sequence[JobRecord]) -> None:
        """Synced when this returns. Raises OverloadedError: no room; come again with them."""
        with self._lock:
            new = [record for record in records if record.result_id not in self._recent]
            untold = [record for record in new if record.result_id not in self._told]
            # Notices first: killed in between, one may come twice, but none is missing.
            if untold:
                self._untold.append([record.without_excerpt().pack() for record in untold])
                self._told |= {record.result_id for record in untold}
            if new:
                self._journal.append([record.pack() for record in new])
            for record in new:
                self._told.discard(record.result_id)
                self._remember(record)
                self._telemetry.diagnosed(record)

    def find(self, result_id: str) -> JobRecord | None:
        """Without its excerpt. Raises ServerUnavailableError: not in memory, no database."""
        found = self._recent.get(result_id)
        if found is not None:
            return JobRecord.unpack(zlib.decompress(found[1]))
        return self._storage.find(result_id)

    def of_job(self, job_id: str) -> list[JobRecord]:
        """The newest first. Raises ServerUnavailableError."""
        with self._lock:
            packed = [stored for job, stored in self._recent.values() if job == job_id]
        recent = [JobRecord.unpack(zlib.decompress(stored)) for stored in packed]
        records = {record.result_id: record for record in recent}
        try:
            stored = self._storage.of_job(job_id, _LARGEST_JOB)
        except ServerUnavailableError:
            if not records:
                raise
            stored = []
        records |= {record.result_id: record for record in stored}
        ordered = sorted(records.values(), key=lambda record: record.diagnosed_at, reverse=True)
        return ordered[:_LARGEST_JOB]

    def known(self, result_ids: Sequence[str]) -> set[str]:
        """Raises ServerUnavailableError."""
        found = {result_id for result_id in result_ids if result_id in self._recent}
        return found | self._storage.known(result_ids)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is stored; False: it was not in time."""
        return self._storing.wait_empty(seconds)

    def _remember(self, record: JobRecord) -> None:
        packed = zlib.compress(record.without_excerpt().pack(), 1)
        self._recent[record.result_id] = (record.job_id, packed)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def _store(self, records: Sequence[JobRecord]) -> None:
        try:
            self._storage.add(records)
        except UnstorableError as error:
            raise RefusedRecordError(str(error)) from error

    def _announce(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            try:
                self._notices.announce(record)
            except ServerError:
                raise
            except PresageError as error:
                raise RefusedRecordError(str(error)) from error


class RefusedRecordError(Exception):
    """No repeating helps."""


def _waiting(spool: Spool) -> list[JobRecord]:
    found: list[JobRecord] = []
    while block := spool.read(_READ_BYTES, 0.0):
        for _, packed in block:
            try:
                found.append(JobRecord.unpack(packed).without_excerpt())
            except (ValueError, KeyError, TypeError):
                continue  # the worker sets it aside
    spool.rewind()
    return found


class _QueueWorker(threading.Thread):
    """Hands a queue's records on, in order, again and again until it works; then commits."""

    def __init__(
        self,
        step: str,
        spool: Spool,
        read_bytes: int,
        handle: Callable[[Sequence[JobRecord]], None],
        telemetry: Telemetry,
    ) -> None:
        super().__init__(name=step, daemon=True)
        self._step = step
        self._spool = spool
        self._read_bytes = read_bytes
        self._handle = handle
        self._telemetry = telemetry
        self._stopped = threading.Event()
        self._handed_on = threading.Condition()
        self._logger = logging.getLogger("presage.jobs")
        self._problems = ProblemLog(self._logger, _LOG_AGAIN_SECONDS)
        self.trouble: str | None = None

    def run(self) -> None:
        while not self._stopped.is_set():
            packed = [record for _, record in self._spool.read(self._read_bytes, 0.5)]
            if packed and self._hand_on(packed):
                self._spool.commit()
                with self._handed_on:
                    self._handed_on.notify_all()

    def stop(self, seconds: float) -> None:
        """What is not handed on by then stays for the next start."""
        if self.is_alive():
            if self.trouble is None:
                self.wait_empty(seconds)
            self._stopped.set()
            self.join(seconds)

    def wait_empty(self, seconds: float) -> bool:
        with self._handed_on:
            return self._handed_on.wait_for(
                lambda: not self._spool.backlog_bytes or not self.is_alive(), seconds
            )

    def _hand_on(self, packed: Sequence[bytes]) -> bool:
        records = []
        for one in packed:
            try:
                records.append(JobRecord.unpack(one))
            except (ValueError, KeyError, TypeError) as error:
                self._set_aside(one, f"it is none: {error!r}")
        return not records or self._repeat(records)

    def _repeat(self, records: Sequence[JobRecord]) -> bool:
        """False: told to stop before it worked."""
        delay, surprises = _FIRST_DELAY_SECONDS, 0
        while True:
            try:
                self._handle(records)
            except ServerError as error:
                self._report(error.metric_label, str(error))
            except Exception as error:
                surprises += 1
                refused = isinstance(error, RefusedRecordError)
                if not refused:
                    self._logger.exception("%s failed", self._step)
                    self._report("internal", repr(error)[:200])
                if refused or surprises >= _SURPRISES:
                    if len(records) > 1:
                        return all(self._repeat([record]) for record in records)
                    # One bad record must not keep all later ones from people.
                    self._set_aside(records[0].pack(), str(error) or repr(error))
                    self.trouble = None
                    return True
            else:
                self.trouble = None
                return True
            if self._stopped.wait(delay):
                return False
            delay = min(2 * delay, _LARGEST_DELAY_SECONDS)

    def _set_aside(self, packed: bytes, reason: str) -> None:
        self._telemetry.set_aside(self._step)
        self._logger.error("%s: a record is set aside: %s", self._step, reason)
        with (self._spool.folder.parent / f"{self._step}_refused.jsonl").open("ab") as file:
            file.write(packed + b"\n")

    def _report(self, reason: str, text: str) -> None:
        self.trouble = f"{self._step}: {text}"
        self._telemetry.failed(self._step, reason)
        self._problems.report(self._step, reason, text)
