"""``JobRecord``: one diagnosed failure, as it is stored, answered and told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from clients.results import Cause, EvidenceLine

_TIMES = ("started_at", "finished_at", "received_at", "diagnosed_at")


def result_id_of(job_id: str, log_sha256: str) -> str:
    return hashlib.sha256(f"{job_id}\0{log_sha256}".encode()).hexdigest()[:24]


@dataclass(frozen=True)
class JobRecord:
    """Every text in it is masked: no secret of the log is here. Times are aware, in UTC.

    result_id: of the job and its log; the same log of the same job has the same one
    causes: ranked, the root first
    unknown: it failed, and no known cause fits
    source: upload, json_lines, elasticsearch, kubernetes or file
    excerpt: what of the log teaches most, at most 32 KiB of whole lines
    """

    result_id: str
    job_id: str
    log_sha256: str
    size_bytes: int
    source: str
    cluster: str | None
    node: str | None
    device: str | None
    user: str | None
    started_at: datetime | None
    finished_at: datetime | None
    received_at: datetime
    diagnosed_at: datetime
    causes: tuple[Cause, ...]
    root: str | None
    unknown: bool
    probabilities: dict[str, float]
    model_version: str
    excerpt: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(cause.label for cause in self.causes)

    @property
    def occurred_at(self) -> datetime:
        """When the job failed, as far as it is known."""
        return self.finished_at or self.received_at

    def pack(self) -> bytes:
        """JSON on one line."""
        return orjson.dumps(self)

    @classmethod
    def unpack(cls, packed: bytes) -> JobRecord:
        """Raises ValueError, KeyError, TypeError: another program's bytes."""
        stored = orjson.loads(packed)
        for name in _TIMES:
            stored[name] = None if stored[name] is None else datetime.fromisoformat(stored[name])
        stored["causes"] = tuple(cause_of(cause) for cause in stored["causes"])
        return cls(**stored)

    def without_excerpt(self) -> JobRecord:
        return replace(self, excerpt="")

    def answer(self) -> dict[str, Any]:
        """As it is answered: JSON types and times only."""
        return {
            "job_id": self.job_id,
            "result_id": self.result_id,
            "status": "diagnosed",
            "causes": [
                {
                    "label": cause.label,
                    "probability": cause.probability,
                    "root": cause.label == self.root,
                    "evidence": [
                        {"line_number": line.line_number, "text": line.text}
                        for line in cause.evidence
                    ],
                    "action": cause.action,
                }
                for cause in self.causes
            ],
            "root": self.root,
            "unknown": self.unknown,
            "probabilities": self.probabilities,
            "model_version": self.model_version,
            "cluster": self.cluster,
            "node": self.node,
            "device": self.device,
            "user": self.user,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "received_at": self.received_at,
            "diagnosed_at": self.diagnosed_at,
            "source": self.source,
            "size_bytes": self.size_bytes,
            "log_sha256": self.log_sha256,
        }


def cause_of(stored: dict[str, Any]) -> Cause:
    """A cause from its JSON, as ``orjson.dumps`` writes one."""
    evidence = tuple(EvidenceLine(line["line_number"], line["text"]) for line in stored["evidence"])
    return Cause(stored["label"], stored["probability"], evidence, stored["action"])


def now_utc() -> datetime:
    return datetime.now(UTC)
