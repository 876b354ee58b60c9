"""``Outbox``: what is to be told, in a SQLite file, until it was told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

from contract.errors import ServerSetupError, ServerUnavailableError

Added = Literal["waiting", "grouped", "duplicate", "beyond_limit"]
T = TypeVar("T")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    key TEXT NOT NULL,
    group_key TEXT NOT NULL,
    recipient TEXT NOT NULL,
    state TEXT NOT NULL,
    severity INTEGER NOT NULL,
    created REAL NOT NULL,
    due REAL NOT NULL,
    group_until REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    payload TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS beyond_limit (
    channel TEXT PRIMARY KEY, count INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_due ON entries (channel, state, due);
CREATE INDEX IF NOT EXISTS entries_key ON entries (channel, key, created);
CREATE INDEX IF NOT EXISTS entries_group ON entries (channel, group_key, group_until);
"""
_PENDING = "state IN ('waiting', 'grouped')"
_FAILED_SECONDS = 30 * 86_400.0
_BATCH = 2_000


@dataclass(frozen=True)
class Draft:
    """One notification for one channel.

    group_key: what is summed together within ``group_seconds``; empty: nothing is
    repeat_seconds: the same key is not told again before
    """

    channel: str
    key: str
    group_key: str
    recipient: str
    severity: int
    payload: str
    group_seconds: float
    repeat_seconds: float


@dataclass(frozen=True)
class Entry:
    """``grouped``: it waited for the end of its group's window."""

    id: int
    group_key: str
    recipient: str
    grouped: bool
    severity: int
    created: float
    attempts: int
    payload: str


class Outbox:
    """Safe on disk once ``add`` returned. For several threads, and several processes that add;
    the one that holds ``deliverer`` sends.

    limit: waiting entries of a channel; what comes beyond is only counted, and told as a number

    Raises ServerSetupError: the file cannot be used. Later: ServerUnavailableError (disk full …).
    """

    def __init__(self, path: Path, *, limit: int = 20_000) -> None:
        self.path = path
        self._limit = limit
        self._lock = threading.RLock()
        self._deliverer: IO[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Lines of logs are nobody else's business.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(
                path, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ServerSetupError(
                "the outbox of notifications cannot be used",
                where=str(path),
                got=str(error),
                next_command="name another file by `outbox`, or move this one away",
            ) from error

    def add(self, drafts: Sequence[Draft], now: float) -> list[Added]:
        """What became of each, in order; all of them are safe then.

        Raises ServerUnavailableError: none of them is.
        """
        return self._transaction(lambda db: [self._add(db, draft, now) for draft in drafts])

    def beyond_limit(self, channel: str) -> int:
        """Notifications that were only counted, since they were last told of."""
        return self._transaction(
            lambda db: sum(
                int(row[0])
                for row in db.execute(
                    "SELECT count FROM beyond_limit WHERE channel = ?", (channel,)
                )
            )
        )

    def told_beyond_limit(self, channel: str, count: int) -> None:
        self._transaction(
            lambda db: db.execute(
                "UPDATE beyond_limit SET count = count - ? WHERE channel = ?", (count, channel)
            )
        )

    def due(self, channel: str, now: float) -> list[Entry]:
        """The most severe first, then the oldest; at most some thousand."""
        rows = self._transaction(
            lambda db: db.execute(
                "SELECT id, group_key, recipient, state = 'grouped', severity, created, attempts, "
                f"payload FROM entries WHERE channel = ? AND {_PENDING} AND due <= ? "
                "ORDER BY severity DESC, id LIMIT ?",
                (channel, now, _BATCH),
            ).fetchall()
        )
        return [Entry(r[0], r[1], r[2], bool(r[3]), r[4], r[5], r[6], r[7]) for r in rows]

    def next_due(self, channel: str) -> float | None:
        row = self._transaction(
            lambda db: db.execute(
                f"SELECT min(due) FROM entries WHERE channel = ? AND {_PENDING}", (channel,)
            ).fetchone()
        )
        return None if row[0] is None else float(row[0])

    def told(self, ids: Sequence[int], *, group_until: float = 0.0) -> None:
        """``group_until``: what comes of the same group before that is summed."""
        self._transaction(
            lambda db: db.executemany(
                "UPDATE entries SET state = 'told', group_until = max(group_until, ?), error = '', "
                "payload = '' WHERE id = ?",
                [(group_until, entry) for entry in ids],
            )
        )

    def postpone(self, ids: Sequence[int], due: float, error: str) -> None:
        self._transaction(
            lambda db: db.executemany(
                "UPDATE entries SET due = ?, attempts = attempts + 1, error = ? WHERE id = ?",
                [(due, error[:500], entry) for entry in ids],
            )
        )

    def give_up(self, channel: str, created_before: float) -> int:
        """Entries that nobody could be told of for too long; they stay, as ``failed``."""
        return self._transaction(
            lambda db: (
                db.execute(
                    f"UPDATE entries SET state = 'failed' WHERE channel = ? AND {_PENDING} "
                    "AND attempts > 0 AND created < ?",
                    (channel, created_before),
                ).rowcount
            )
        )

    def retry_failed(self, now: float) -> int:
        """Entries given up are tried again."""
        return self._transaction(
            lambda db: (
                db.execute(
                    "UPDATE entries SET state = 'waiting', attempts = 0, created = ?, due = ? "
                    "WHERE state = 'failed'",
                    (now, now),
                ).rowcount
            )
        )

    def purge(self, channel: str, now: float, *, told_seconds: float) -> int:
        """Told entries go once no duplicate of them is to be known any more."""
        return self._transaction(
            lambda db: (
                db.execute(
                    "DELETE FROM entries WHERE channel = ? AND "
                    "(state = 'told' AND created < ? AND group_until < ? "
                    "OR state = 'failed' AND created < ?)",
                    (channel, now - told_seconds, now, now - _FAILED_SECONDS),
                ).rowcount
            )
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """(channel, state) → entries."""
        rows = self._transaction(
            lambda db: db.execute(
                "SELECT channel, state, count(*) FROM entries GROUP BY channel, state"
            ).fetchall()
        )
        return {(channel, state): count for channel, state, count in rows}

    def problems(self, limit: int = 20) -> list[tuple[str, str, int, str]]:
        """(channel, state, attempts, error) of what failed at least once, the newest first."""
        return self._transaction(
            lambda db: db.execute(
                "SELECT channel, state, attempts, error FROM entries WHERE error <> '' "
                "ORDER BY id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        )

    def becomes_deliverer(self) -> bool:
        """Whether this process is the one that sends; the lock ends with it, however it ends."""
        with self._lock:
            if self._deliverer is not None:
                return True
            try:
                file = self.path.with_name(self.path.name + ".lock").open("ab")
            except OSError as error:
                raise ServerUnavailableError(
                    "the outbox cannot be locked", where=str(self.path), got=str(error)
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._deliverer = file
            return True

    def close(self) -> None:
        with self._lock:
            self._database.close()
            if self._deliverer is not None:
                self._deliverer.close()
                self._deliverer = None

    def _add(self, db: sqlite3.Connection, draft: Draft, now: float) -> Added:
        known = db.execute(
            "SELECT 1 FROM entries WHERE channel = ? AND key = ? AND created > ? LIMIT 1",
            (draft.channel, draft.key, now - draft.repeat_seconds),
        ).fetchone()
        if known:
            return "duplicate"
        waiting = db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM entries WHERE channel = ? "
            f"AND {_PENDING} LIMIT ?)",
            (draft.channel, self._limit),
        ).fetchone()[0]
        if waiting >= self._limit:
            db.execute(
                "INSERT INTO beyond_limit VALUES (?, 1) "
                "ON CONFLICT (channel) DO UPDATE SET count = count + 1",
                (draft.channel,),
            )
            return "beyond_limit"
        state: Added = "waiting"
        due, group_until = now, 0.0
        if draft.group_key and draft.group_seconds > 0:
            open_until = db.execute(
                "SELECT max(group_until) FROM entries WHERE channel = ? AND group_key = ?",
                (draft.channel, draft.group_key),
            ).fetchone()[0]
            if open_until is not None and open_until > now:
                state, due = "grouped", open_until
            else:
                group_until = now + draft.group_seconds
        db.execute(
            "INSERT INTO entries (channel, key, group_key, recipient, state, severity, created, "
            "due, group_until, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                draft.channel, draft.key, draft.group_key, draft.recipient, state, draft.severity,
                now, due, group_until, draft.payload,
            ),
        )  # fmt: skip
        return state

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, self._translated(), self._begun():
            return work(self._database)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ServerUnavailableError(
                "the outbox of notifications cannot be read or written",
                where=str(self.path),
                got=str(error),
            ) from error
