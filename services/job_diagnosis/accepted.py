"""``AcceptedLogs``: failures that are acknowledged and not diagnosed yet, a file each."""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from contract.errors import OverloadedError, ServerSetupError

_SUFFIX = ".log"
_PARTIAL = ".partial"
_REFUSED = "refused"


@dataclass(frozen=True)
class JobFacts:
    """What is known of a failure before its diagnosis; see ``JobRecord``."""

    result_id: str
    job_id: str
    log_sha256: str
    size_bytes: int
    source: str
    received_at: datetime
    cluster: str | None = None
    node: str | None = None
    device: str | None = None
    user: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class AcceptedLog:
    """text: masked. line_numbers: as ``ThinnedLog.line_numbers``."""

    facts: JobFacts
    text: bytes
    line_numbers: tuple[int, ...] | array[int] | list[int]


class AcceptedLogs:
    """Files of one folder, one process. Used by several threads.

    Raises ServerSetupError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._facts: dict[str, JobFacts] = {}
        try:
            (folder / _REFUSED).mkdir(parents=True, exist_ok=True)
            for partial in folder.glob("*" + _PARTIAL):
                # Its writer was killed: nobody was told that it is kept.
                partial.unlink()
            found = [(path, path.stat()) for path in folder.glob("*" + _SUFFIX)]
        except OSError as error:
            raise ServerSetupError(
                "accepted logs cannot be kept",
                where=str(folder),
                got=error.strerror or str(error),
                next_command="choose another --spool",
            ) from error
        for path, status in sorted(found, key=lambda pair: pair[1].st_mtime_ns):
            self._sizes[path.stem] = status.st_size
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self._facts[path.stem] = self._read_facts(path)

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, result_id: object) -> bool:
        return result_id in self._sizes

    @property
    def size_bytes(self) -> int:
        return sum(list(self._sizes.values()))

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    def oldest_received_at(self) -> datetime | None:
        """Of those that wait and can be read."""
        with self._lock:
            return min((facts.received_at for facts in self._facts.values()), default=None)

    def ids(self) -> list[str]:
        """The oldest first."""
        return list(self._sizes)

    def of_job(self, job_id: str) -> list[JobFacts]:
        """Of those that wait."""
        waiting = (self._facts.get(name) for name in self.ids())
        return [facts for facts in waiting if facts is not None and facts.job_id == job_id]

    def put(self, log: AcceptedLog) -> None:
        """On the disk when this returns. Raises OverloadedError: no room."""
        numbers = array("Q", log.line_numbers).tobytes()
        head = orjson.dumps({"facts": log.facts, "numbers": len(log.line_numbers)}) + b"\n"
        size = len(head) + len(numbers) + len(log.text)
        name = log.facts.result_id
        with self._lock:
            if self.size_bytes + size > self._limit_bytes:
                raise OverloadedError(
                    "too many logs wait for their diagnosis",
                    where=str(self._folder),
                    expected=f"at most {self._limit_bytes:,} bytes",
                    got=f"{len(self)} logs of {self.size_bytes:,} bytes and {size:,} more",
                    next_command="send it again later",
                )
            self._sizes[name] = size
            self._facts[name] = log.facts
        partial = self._folder / (name + _PARTIAL)
        try:
            with partial.open("wb") as file:
                for part in (head, numbers, log.text):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path(name))
            self._sync_folder()
        except OSError as error:
            with self._lock:
                self._forget(name)
            partial.unlink(missing_ok=True)
            raise OverloadedError(
                "the log cannot be kept",
                where=str(self._folder),
                got=error.strerror or str(error),
                next_command="free the disk, then send it again",
            ) from error

    def load(self, result_id: str) -> AcceptedLog:
        """Raises OSError, ValueError, KeyError, TypeError: gone, or another program's bytes."""
        with self._path(result_id).open("rb") as file:
            head = orjson.loads(file.readline())
            numbers = array("Q")
            numbers.frombytes(file.read(8 * head["numbers"]))
            return AcceptedLog(facts_of(head["facts"]), file.read(), numbers)

    def done(self, result_id: str) -> None:
        with self._lock:
            self._forget(result_id)
        self._path(result_id).unlink(missing_ok=True)

    def refuse(self, result_id: str, reason: str) -> None:
        """The model cannot read it: it lies in ``refused/`` for somebody to look at."""
        with self._lock:
            self._forget(result_id)
        aside = self._folder / _REFUSED
        (aside / (result_id + ".reason")).write_text(reason, "utf-8")
        path = self._path(result_id)
        if path.exists():
            path.replace(aside / path.name)

    def _forget(self, result_id: str) -> None:
        self._sizes.pop(result_id, None)
        self._facts.pop(result_id, None)

    @staticmethod
    def _read_facts(path: Path) -> JobFacts:
        with path.open("rb") as file:
            return facts_of(orjson.loads(file.readline())["facts"])

    def _path(self, result_id: str) -> Path:
        return self._folder / (result_id + _SUFFIX)

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def facts_of(stored: dict[str, Any]) -> JobFacts:
    times = ("received_at", "started_at", "finished_at")
    facts: dict[str, Any] = {
        name: datetime.fromisoformat(value) if name in times and value else value
        for name, value in stored.items()
    }
    return JobFacts(**facts)
