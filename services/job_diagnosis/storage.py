"""``Storage``: results and verdicts in SQLite or PostgreSQL."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from contract.errors import ConfigError, ServerUnavailableError
from services.job_diagnosis.patience import ANSWER_SECONDS, Patience, bound_answers
from services.job_diagnosis.record import JobRecord, cause_of, now_utc
from services.job_diagnosis.schema import causes, migrate, results, verdicts

T = TypeVar("T")
_BUSY_SECONDS = 10
_CONNECT_SECONDS = 5
_KEPT_TOGETHER = 500
_PLAIN_COLUMNS = (
    "result_id",
    "job_id",
    "log_sha256",
    "size_bytes",
    "source",
    "cluster",
    "node",
    "device",
    "started_at",
    "finished_at",
    "received_at",
    "diagnosed_at",
    "root",
    "unknown",
    "model_version",
)


class UnstorableError(Exception):
    """The database refuses this very row, and always will."""


class Storage:
    """Thread-safe. The tables are made, or brought to this version, at the first use that finds
    the database there.

    Raises:
        ConfigError: no database URL that is understood.
        ServerUnavailableError (everything): the database is away; ServerSetupError: see
            ``schema.migrate``.
    """

    def __init__(self, url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.engine = _engine(url, answer_seconds)
        self._is_ready = False
        self._preparing = threading.Lock()
        self._patience = Patience()

    def close(self) -> None:
        self.engine.dispose()

    def prepare(self) -> None:
        with self._connection():
            pass

    def add(self, records: Sequence[JobRecord]) -> int:
        """How many of them are new; all or none are kept. Raises UnstorableError besides."""
        count = 0
        with self._connection(writes=True) as connection:
            insert: Any = (
                postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
            )
            for record in records:
                statement = (
                    insert(results)
                    .values(row_of(record))
                    .on_conflict_do_nothing(index_elements=["result_id"])
                    .returning(results.c.seq)
                )
                if connection.execute(statement).first() is None:
                    continue
                count += 1
                rows = [
                    {
                        "result_id": record.result_id,
                        "rank": rank,
                        "label": cause.label,
                        "probability": cause.probability,
                    }
                    for rank, cause in enumerate(record.causes)
                ]
                if rows:
                    connection.execute(causes.insert(), rows)
        return count

    def find(self, result_id: str) -> JobRecord | None:
        """Without its excerpt."""
        query = sa.select(results).where(results.c.result_id == result_id)
        with self._connection() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else record_of(row)

    def known(self, result_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self._connection() as connection:
            for start in range(0, len(result_ids), _KEPT_TOGETHER):
                some = result_ids[start : start + _KEPT_TOGETHER]
                query = sa.select(results.c.result_id).where(results.c.result_id.in_(some))
                found |= set(connection.execute(query).scalars())
        return found

    def of_job(self, job_id: str, limit: int) -> list[JobRecord]:
        """The newest first."""
        query = (
            sa.select(results)
            .where(results.c.job_id == job_id)
            .order_by(results.c.seq.desc())
            .limit(limit)
        )
        with self._connection() as connection:
            return [record_of(row) for row in connection.execute(query).mappings()]

    def read(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._connection() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def write(self, change: Callable[[Connection], T]) -> T:
        """``change`` in one transaction."""
        with self._connection(writes=True) as connection:
            return change(connection)

    def forget(self, days: int, now: datetime | None = None) -> int:
        """Drop what is older than so many days and has no verdict; how many."""
        before = (now or now_utc()) - timedelta(days=days)
        judged = sa.select(verdicts.c.result_id)
        statement = results.delete().where(
            results.c.received_at < before, results.c.result_id.not_in(judged)
        )
        with self._connection(writes=True) as connection:
            return connection.execute(statement).rowcount

    @contextmanager
    def _connection(self, *, writes: bool = False) -> Iterator[Connection]:
        entered = self._patience.enter()
        failed = False
        try:
            self._make_ready()
            with self.engine.connect() as connection:
                connection.execution_options(writes=writes)
                with connection.begin():
                    yield connection
        except (sa.exc.DataError, sa.exc.IntegrityError) as error:
            raise UnstorableError(_reason(error)) from error
        except sa.exc.SQLAlchemyError as error:
            failed = True
            raise ServerUnavailableError(
                "the database does not answer",
                where=self.engine.url.render_as_string(hide_password=True),
                got=_reason(error),
                next_command="start it; what is diagnosed meanwhile is kept and stored then",
            ) from error
        finally:
            self._patience.leave(entered, failed=failed)

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        with self._preparing:
            if not self._is_ready:
                _make_folder(self.engine.url)
                migrate(self.engine)
                self._is_ready = True


def _engine(url: str, answer_seconds: float) -> sa.Engine:
    try:
        parsed = sa.engine.make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        dialect = parsed.get_backend_name()
        if dialect not in ("sqlite", "postgresql"):
            raise ValueError(f"{dialect} is not supported")
        if dialect == "postgresql":
            engine = sa.create_engine(
                parsed,
                pool_pre_ping=True,
                pool_size=4,
                max_overflow=4,
                pool_timeout=_CONNECT_SECONDS,
                connect_args={"connect_timeout": _CONNECT_SECONDS},
            )
            bound_answers(engine, answer_seconds)
            return engine
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("an SQLite database must be a file")
        engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})
    except (ValueError, sa.exc.ArgumentError, ImportError) as error:
        raise ConfigError(
            "no database URL that is understood",
            where="PRESAGE_JOBS_DATABASE_URL",
            expected="sqlite:///file or postgresql://user:password@host/name",
            got=str(error) if "://" not in str(error) else "another one",
        ) from error
    _use_wal(engine)
    return engine


def _use_wal(engine: sa.Engine) -> None:
    """Readers beside the writer; synced, because the journal is emptied by what was stored."""

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        # Transactions are begun by us: who will write says so at once, or two would deadlock.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_folder(url: sa.engine.URL) -> None:
    if url.get_backend_name() != "sqlite":
        return
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerUnavailableError(
            "the database's folder cannot be made",
            where=str(folder),
            got=error.strerror or str(error),
        ) from error


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    """Without the statement and its values, which are the job's."""
    return str(getattr(error, "orig", None) or type(error).__name__).split("\n")[0][:300]


def row_of(record: JobRecord) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _PLAIN_COLUMNS}
    words = [record.job_id, record.node, record.user, record.cluster, record.device]
    words += [line.text for cause in record.causes for line in cause.evidence]
    return row | {
        "user_name": record.user,
        "occurred_at": record.occurred_at,
        "day": record.occurred_at.date().isoformat(),
        "causes": orjson.dumps(record.causes).decode(),
        "probabilities": orjson.dumps(record.probabilities).decode(),
        "search_text": "\n".join(word for word in words if word).lower(),
        "excerpt": zlib.compress(record.excerpt.encode("utf-8", "replace")),
    }


def record_of(row: Any) -> JobRecord:
    """Without its excerpt."""
    return JobRecord(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        user=row["user_name"],
        causes=tuple(cause_of(cause) for cause in orjson.loads(row["causes"])),
        probabilities=orjson.loads(row["probabilities"]),
    )
