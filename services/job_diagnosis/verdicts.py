"""What people say of a diagnosis: kept, given to the next training, and counted as a report."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.engine import Connection

from contract.errors import InputError
from services.job_diagnosis.record import JobRecord, now_utc
from services.job_diagnosis.schema import results, verdicts
from services.job_diagnosis.searching import Word
from services.job_diagnosis.secrets import mask_words
from services.job_diagnosis.storage import Storage

HEADER = "labels\ttext\n"
_READ_AT_ONCE = 200
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\n"}
_TO_ESCAPE = re.compile(r"\r\n|[\\\n\t\r]")


class Verdict(BaseModel):
    """labels: the true causes, the root first; needed where the diagnosis is wrong and somebody
    knows better. result_id: the job's newest result, where it is not named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal["right", "wrong"]
    labels: Annotated[tuple[Word, ...], Field(max_length=20)] = ()
    note: str = Field(default="", max_length=4_000)
    by: str = Field(default="", max_length=253)
    result_id: Word | None = None


def add_verdict(storage: Storage, record: JobRecord, verdict: Verdict) -> dict[str, Any]:
    """Keep it; the newest one of a result counts. Raises InputError: labels that make no sense."""
    labels = tuple(dict.fromkeys(verdict.labels))
    unknown = [label for label in labels if label not in record.probabilities]
    if unknown:
        raise InputError(
            "no such label",
            where="labels",
            expected=f"some of {', '.join(record.probabilities)}",
            got=repr(unknown[0]),
        )
    if verdict.verdict == "right":
        if labels and set(labels) != set(record.labels):
            raise InputError(
                "right, and yet other labels",
                where="labels",
                expected=f"none, or {', '.join(record.labels) or 'none'}",
                got=", ".join(labels),
            )
        labels = record.labels
    elif labels and set(labels) == set(record.labels) and labels[0] == record.root:
        raise InputError("wrong, and yet the same labels", where="labels")
    row = {
        "result_id": record.result_id,
        "is_right": verdict.verdict == "right",
        "labels": orjson.dumps(labels).decode(),
        "note": mask_words(verdict.note.replace("\0", " ")),
        "given_by": mask_words(verdict.by.replace("\0", " ")),
        "given_at": now_utc(),
    }

    def insert(connection: Connection) -> None:
        connection.execute(verdicts.insert().values(row))

    storage.write(insert)
    return _told(row) | {"job_id": record.job_id}


def verdicts_of(storage: Storage, result_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """{result_id: its verdicts, the newest first}"""
    query = (
        sa.select(verdicts)
        .where(verdicts.c.result_id.in_(list(result_ids)))
        .order_by(verdicts.c.seq.desc())
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in storage.read(query):
        found.setdefault(row["result_id"], []).append(_told(row))
    return found


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "result_id": row["result_id"],
        "verdict": "right" if row["is_right"] else "wrong",
        "labels": orjson.loads(row["labels"]),
        "note": row["note"],
        "by": row["given_by"],
        "given_at": row["given_at"],
    }


def _counting() -> sa.Subquery:
    """The verdicts that count: the newest of each result."""
    newest = sa.select(sa.func.max(verdicts.c.seq)).group_by(verdicts.c.result_id)
    return sa.select(verdicts).where(verdicts.c.seq.in_(newest)).subquery()


def training_rows(storage: Storage) -> Iterator[str]:
    r"""Lines of ``label,label<TAB>text`` as training reads them, after a header: ``\n``, ``\t`` and
    ``\\`` stand for what they are. Without known labels a verdict teaches nothing and is left out.
    """
    yield HEADER
    counting = _counting()
    last = 0
    while True:
        query = (
            sa.select(counting.c.seq, counting.c.labels, results.c.excerpt)
            .join(results, results.c.result_id == counting.c.result_id)
            .where(counting.c.seq > last, counting.c.labels != "[]")
            .order_by(counting.c.seq)
            .limit(_READ_AT_ONCE)
        )
        rows = storage.read(query)
        for row in rows:
            text = zlib.decompress(row["excerpt"]).decode().replace("\0", " ")
            if text.strip():
                labels = ",".join(orjson.loads(row["labels"]))
                yield f"{labels}\t{_TO_ESCAPE.sub(_escape, text)}\n"
        if len(rows) < _READ_AT_ONCE:
            return
        last = rows[-1]["seq"]


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES[match[0][-1]]


@dataclass(frozen=True)
class _Judged:
    model_version: str
    is_right: bool
    said: tuple[str, ...]
    true: tuple[str, ...]


def report(storage: Storage, since: datetime | None = None) -> dict[str, Any]:
    """How the model did where somebody said so, in all and by model version."""
    counting = _counting()
    query = sa.select(
        results.c.model_version, results.c.causes, counting.c.is_right, counting.c.labels
    ).join(counting, results.c.result_id == counting.c.result_id)
    diagnosed = sa.select(results.c.model_version, sa.func.count().label("count")).group_by(
        results.c.model_version
    )
    if since is not None:
        query = query.where(results.c.occurred_at >= since)
        diagnosed = diagnosed.where(results.c.occurred_at >= since)
    judged = [
        _Judged(
            row["model_version"],
            row["is_right"],
            tuple(cause["label"] for cause in orjson.loads(row["causes"])),
            tuple(orjson.loads(row["labels"])),
        )
        for row in storage.read(query)
    ]
    counts = {row["model_version"]: row["count"] for row in storage.read(diagnosed)}
    versions = sorted(counts, key=lambda name: (len(name), name), reverse=True)
    return {
        "since": since,
        **_figures(judged, sum(counts.values())),
        "by_model_version": {
            version: _figures([one for one in judged if one.model_version == version], count)
            for version, count in ((version, counts[version]) for version in versions)
        },
    }


def _figures(judged: Sequence[_Judged], diagnosed: int) -> dict[str, Any]:
    """labelled: verdicts that name the true causes; F1 and root are of those alone. right_share is
    of all, so a "wrong" of somebody who knows no better counts there.
    """
    labelled = [one for one in judged if one.true]
    hits, said, true = Counter[str](), Counter[str](), Counter[str]()
    for one in labelled:
        said.update(one.said)
        true.update(one.true)
        hits.update(set(one.said) & set(one.true))
    roots = [one.said[:1] == one.true[:1] for one in labelled]
    return {
        "diagnosed": diagnosed,
        "verdicts": len(judged),
        "right_share": _share(sum(one.is_right for one in judged), len(judged)),
        "labelled": len(labelled),
        "root_share": _share(sum(roots), len(roots)),
        "micro_precision": _share(hits.total(), said.total()),
        "micro_recall": _share(hits.total(), true.total()),
        "micro_f1": _share(2 * hits.total(), said.total() + true.total()),
        "by_label": {
            label: {
                "true": true[label],
                "said": said[label],
                "precision": _share(hits[label], said[label]),
                "recall": _share(hits[label], true[label]),
                "f1": _share(2 * hits[label], said[label] + true[label]),
            }
            for label in sorted(set(said) | set(true))
        },
    }


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
