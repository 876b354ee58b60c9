"""The database's tables, and the steps that brought them there.

A step, once released, never changes: what is wrong is mended by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from contract.errors import ServerSetupError

_LOCK_KEY = 0x70726573616765  # "presage": PostgreSQL's advisory lock of this schema


class UtcTime(sa.types.TypeDecorator[datetime]):
    """Aware times; SQLite, which knows no zones, keeps them in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        read: datetime = value
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

results = sa.Table(
    "results",
    metadata,
    sa.Column("seq", _number, primary_key=True, autoincrement=True),
    sa.Column("result_id", sa.String(64), nullable=False, unique=True),
    sa.Column("job_id", sa.String(255), nullable=False, index=True),
    sa.Column("log_sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("cluster", sa.String(255)),
    sa.Column("node", sa.String(255), index=True),
    sa.Column("device", sa.String(255)),
    sa.Column("user_name", sa.String(255), index=True),
    sa.Column("started_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("received_at", UtcTime, nullable=False),
    sa.Column("diagnosed_at", UtcTime, nullable=False),
    sa.Column("occurred_at", UtcTime, nullable=False, index=True),
    # Of occurred_at, in UTC: grouping by it is the same in every database.
    sa.Column("day", sa.String(10), nullable=False, index=True),
    sa.Column("root", sa.String(64)),
    sa.Column("unknown", sa.Boolean, nullable=False),
    sa.Column("causes", sa.Text, nullable=False),
    sa.Column("probabilities", sa.Text, nullable=False),
    sa.Column("model_version", sa.String(64), nullable=False),
    sa.Column("search_text", sa.Text, nullable=False),
    sa.Column("excerpt", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

causes = sa.Table(
    "causes",
    metadata,
    sa.Column(
        "result_id",
        sa.String(64),
        sa.ForeignKey("results.result_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("label", sa.String(64), nullable=False, index=True),
    sa.Column("probability", sa.Float, nullable=False),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("seq", _number, primary_key=True, autoincrement=True),
    sa.Column(
        "result_id",
        sa.String(64),
        sa.ForeignKey("results.result_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("is_right", sa.Boolean, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("given_by", sa.String(255), nullable=False),
    sa.Column("given_at", UtcTime, nullable=False),
    sqlite_autoincrement=True,
)

_versions = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer))


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)


STEPS: tuple[Callable[[Connection], None], ...] = (_create,)
"""``STEPS[n]`` leads from version n to n + 1."""


def migrate(engine: sa.Engine) -> None:
    """Bring the database to this version; several processes may try at once.

    Raises ServerSetupError: a newer version of this program was here.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
        _versions.create(connection, checkfirst=True)
        version = connection.execute(sa.select(_versions.c.version)).scalar()
        if version is None:
            version = 0
            connection.execute(_versions.insert().values(version=0))
        if version > len(STEPS):
            raise ServerSetupError(
                "the database is of a newer version",
                where=str(engine.url.render_as_string(hide_password=True)),
                expected=f"schema {len(STEPS)} or older",
                got=f"schema {version}",
                next_command="start the newer program, or name another database",
            )
        for step in STEPS[version:]:
            step(connection)
        connection.execute(_versions.update().values(version=len(STEPS)))
