"""Questions about many results: which ones, and how many of what."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from contract.errors import InputError
from services.job_diagnosis.record import JobRecord, now_utc
from services.job_diagnosis.schema import causes, results
from services.job_diagnosis.storage import Storage, record_of
from services.job_diagnosis.telemetry import HEALTHY, UNKNOWN

LARGEST_PAGE = 200
LARGEST_TREND = 5_000
_MOST_WORDS = 8
_AGO = re.compile(r"(\d{1,6})([smhdw])")
_AGO_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

Dimension = Literal["cause", "day", "node", "user", "cluster"]


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("expected no control characters")
    return text.strip()


def _time(value: Any) -> Any:
    """A time, or how long ago: 90m, 24h, 7d."""
    found = _AGO.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    return now_utc() - timedelta(seconds=int(found[1]) * _AGO_SECONDS[found[2]])


def _aware(value: datetime) -> datetime:
    """Times without a zone are UTC."""
    try:
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time of our days") from None
    if not 2000 <= aware.year <= 2200:
        raise ValueError("expected a time of our days")
    return aware


Word = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_one_line)]
Time = Annotated[datetime, AfterValidator(_aware)]
TimeOrAgo = Annotated[datetime, BeforeValidator(_time), AfterValidator(_aware)]


class JobFilter(BaseModel):
    """All that is given must hold. cause: among a result's causes; q: words, each somewhere in the
    evidence or the names, letter case aside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Word | None = None
    node: Word | None = None
    user: Word | None = None
    cluster: Word | None = None
    since: TimeOrAgo | None = None
    until: TimeOrAgo | None = None
    unknown: bool | None = None
    q: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)] | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        found: list[sa.ColumnElement[bool]] = []
        equals = (
            (results.c.node, self.node),
            (results.c.user_name, self.user),
            (results.c.cluster, self.cluster),
            (results.c.unknown, self.unknown),
        )
        found += [column == value for column, value in equals if value is not None]
        if self.cause is not None:
            of_cause = sa.select(causes.c.result_id).where(causes.c.label == self.cause)
            found.append(results.c.result_id.in_(of_cause))
        if self.since is not None:
            found.append(results.c.occurred_at >= self.since)
        if self.until is not None:
            found.append(results.c.occurred_at < self.until)
        for word in (self.q or "").lower().split()[:_MOST_WORDS]:
            found.append(results.c.search_text.contains(word, autoescape=True))
        return found


class Page(JobFilter):
    cursor: Annotated[str, Field(max_length=64)] | None = None
    limit: int = Field(default=50, ge=1, le=LARGEST_PAGE)


class Trend(JobFilter):
    by: str = Field(default="cause,day", max_length=60)
    limit: int = Field(default=1_000, ge=1, le=LARGEST_TREND)

    def dimensions(self) -> tuple[Dimension, ...]:
        """Raises InputError."""
        names = [name.strip() for name in self.by.split(",")]
        known = ("cause", "day", "node", "user", "cluster")
        if not names or len(set(names)) != len(names) or not set(names) <= set(known):
            raise InputError(
                "not what trends are counted by",
                where="by",
                expected=f"some of {', '.join(known)}, each once",
                got=repr(self.by),
            )
        return tuple(names)  # type: ignore[arg-type]


def search(storage: Storage, page: Page) -> tuple[list[JobRecord], str | None]:
    """The newest first, and the cursor of the next page. Raises InputError: a strange cursor."""
    query = sa.select(results).where(*page.conditions()).order_by(results.c.seq.desc())
    if page.cursor is not None:
        query = query.where(results.c.seq < _position(page.cursor))
    rows = storage.read(query.limit(page.limit + 1))
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    return [record_of(row) for row in rows], _cursor(rows[-1]["seq"]) if more else None


def count_trend(storage: Storage, trend: Trend) -> tuple[list[dict[str, Any]], bool]:
    """Rows of the dimensions and ``count``; whether there are more than ``limit`` of them."""
    names = trend.dimensions()
    cause: sa.ColumnElement[Any] = sa.func.coalesce(
        causes.c.label, sa.case((results.c.unknown, UNKNOWN), else_=HEALTHY)
    )
    columns = {
        "cause": cause,
        "day": results.c.day,
        "node": results.c.node,
        "user": results.c.user_name,
        "cluster": results.c.cluster,
    }
    chosen = [columns[name].label(name) for name in names]
    count = sa.func.count().label("count")
    query = sa.select(*chosen, count).select_from(
        results.outerjoin(causes) if "cause" in names else results
    )
    if "cause" in names and trend.cause is not None:
        query = query.where(causes.c.label == trend.cause)
    order: Sequence[Any] = [*(["day"] if "day" in names else []), sa.desc("count"), *names]
    query = (
        query.where(*trend.conditions())
        .group_by(*(columns[name] for name in names))
        .order_by(*order)
        .limit(trend.limit + 1)
    )
    rows = storage.read(query)
    return rows[: trend.limit], len(rows) > trend.limit


def _cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(f"v1:{seq}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        version, _, seq = text.partition(":")
        if version == "v1" and seq.isdecimal() and len(seq) < 19:
            return int(seq)
    except (binascii.Error, ValueError):
        pass
    raise InputError("not a cursor", where="cursor", expected="next_cursor of the page before")
