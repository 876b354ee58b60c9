"""``JobRecord``: one diagnosed failure, as it is stored, answered and told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from clients.results import Cause


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
