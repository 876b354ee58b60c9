"""Records and accepted logs as the service makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from clients.results import Cause, EvidenceLine
from services.job_diagnosis.accepted import AcceptedLog, JobFacts
from services.job_diagnosis.record import JobRecord, result_id_of

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)


@pytest.fixture
def make_record() -> Callable[..., JobRecord]:
    def make(job: str, **parts: Any) -> JobRecord:
        cause = Cause("OOM", 0.9, (EvidenceLine(7, "证据 <b>"),), {"zh": "查", "en": "look"})
        record = JobRecord(
            result_id=result_id_of(job, "log"),
            job_id=job,
            log_sha256="ab" * 32,
            size_bytes=5,
            source="upload",
            cluster=None,
            node="n1",
            device=None,
            user=None,
            started_at=None,
            finished_at=NOON,
            received_at=NOON,
            diagnosed_at=NOON,
            causes=(cause,),
            root="OOM",
            unknown=False,
            probabilities={"OOM": 0.9, "Disk_Full": 0.1},
            model_version="1",
            excerpt="log\nof it",
        )
        return replace(record, **parts)

    return make


@pytest.fixture
def make_log() -> Callable[..., AcceptedLog]:
    def make(job: str, text: bytes = b"boom", numbers: tuple[int, ...] = ()) -> AcceptedLog:
        facts = JobFacts(result_id_of(job, "log"), job, "ab" * 32, len(text), "upload", NOON)
        return AcceptedLog(replace(facts, started_at=NOON, user="li"), text, numbers)

    return make
