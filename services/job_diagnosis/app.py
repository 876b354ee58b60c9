"""``make_app``: the HTTP API.

POST /v1/jobs/{id}/failure   a log, or where it lies → causes, evidence, actions
GET  /v1/jobs                results that are searched for; /v1/jobs/{id}: those of a job
GET  /v1/trends              how many of what
POST /v1/jobs/{id}/verdict   right or wrong; GET /v1/verdicts.tsv for training, /v1/report
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from contract.errors import InputError, RequestRefusedError, ServerUnavailableError
from services.job_diagnosis.accepted import AcceptedLogs, JobFacts
from services.job_diagnosis.evidence import Reference
from services.job_diagnosis.intake import Intake, Outcome
from services.job_diagnosis.record import JobRecord, now_utc
from services.job_diagnosis.results import ResultBook
from services.job_diagnosis.searching import (
    Page,
    Time,
    TimeOrAgo,
    Trend,
    Word,
    count_trend,
    search,
)
from services.job_diagnosis.secrets import mask_words
from services.job_diagnosis.storage import Storage, UnstorableError
from services.job_diagnosis.telemetry import Telemetry
from services.job_diagnosis.verdicts import (
    Verdict,
    add_verdict,
    report,
    training_rows,
    verdicts_of,
)
from services.web.body import JSON, content_type_of, parse_json
from services.web.limits import NDJSON
from services.web.settings import WebSettings

STREAM_PATHS = re.compile(r"/v1/jobs/[^/]+/failure")
REPLAYED = "Idempotency-Replayed"
_JSON_LINES = (NDJSON, "application/jsonl", "application/json-lines", "application/x-jsonlines")
_TEXT = (
    "",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    # What curl says of --data-binary.
    "application/x-www-form-urlencoded",
)
_LARGEST_JSON_BYTES = 1 << 20
_JOB_ID = re.compile(r"[^\x00-\x20\x7f/\ud800-\udfff]{1,200}")
_RETRY_SECONDS = 5
_FLUSH_SECONDS = 2.0
_WAIT = re.compile(r"\s*wait\s*=\s*(\d{1,5})\s*")
_AHEAD = timedelta(days=1)
_reference: TypeAdapter[Reference] = TypeAdapter(Reference)


class Facts(BaseModel):
    """What the platform knows of the job; a header such as ``Presage-Node`` says the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: Word | None = None
    node: Word | None = None
    device: Word | None = None
    user: Word | None = None
    started_at: Time | None = None
    finished_at: Time | None = None


class Since(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    since: TimeOrAgo | None = None


class _Answer(Response):
    media_type = JSON

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def make_app(
    intake: Intake,
    accepted: AcceptedLogs,
    book: ResultBook,
    storage: Storage,
    telemetry: Telemetry,
    web: WebSettings,
    *,
    answer_seconds: float,
) -> FastAPI:
    app = FastAPI(
        title="Presage job diagnosis", docs_url=None, redoc_url=None, default_response_class=_Answer
    )

    @app.post("/v1/jobs/{job_id}/failure", responses={202: {"description": "accepted"}})
    async def failure(job_id: str, request: Request, facts: Annotated[Facts, Query()]) -> Response:
        _check_origin(request)
        asked = content_type_of(request)
        told = _job_facts(job_id, request, facts, _source_of(asked))
        wait = _wait_seconds(request, answer_seconds)
        if asked == JSON:
            reference = _read_reference(await _small_body(request))
            told = JobFacts(**{**vars(told), "source": reference.source})
            outcome = await intake.fetch(told, reference, wait)
        else:
            outcome = await intake.upload(told, request.stream(), wait)
        return _outcome(job_id, outcome)

    @app.get("/v1/jobs")
    async def jobs(page: Annotated[Page, Query()]) -> Response:
        records, cursor = await run_in_threadpool(search, storage, page)
        return _Answer({"results": [one.answer() for one in records], "next_cursor": cursor})

    @app.get("/v1/jobs/{job_id}")
    async def job(job_id: str) -> Response:
        records = await run_in_threadpool(book.of_job, _checked(job_id))
        waiting = [] if records else await run_in_threadpool(_waiting, accepted, job_id)
        if not records and not waiting:
            raise _no_job(job_id)
        given = await run_in_threadpool(_verdicts, storage, records)
        results = [one.answer() | {"verdicts": given.get(one.result_id, [])} for one in records]
        return _Answer({"job_id": job_id, "results": results, "waiting": waiting})

    @app.get("/v1/trends")
    async def trends(trend: Annotated[Trend, Query()]) -> Response:
        rows, more = await run_in_threadpool(count_trend, storage, trend)
        return _Answer({"by": trend.dimensions(), "rows": rows, "more": more})

    @app.post("/v1/jobs/{job_id}/verdict", status_code=201)
    async def verdict(job_id: str, given: Verdict) -> Response:
        record = await run_in_threadpool(_judged, book, _checked(job_id), given.result_id)
        told = await run_in_threadpool(_add_verdict, book, storage, record, given)
        telemetry.judged(given.verdict)
        return _Answer(told, 201)

    @app.get("/v1/verdicts.tsv")
    async def verdicts_tsv() -> Response:
        rows = training_rows(storage)
        # The first question tells whether the database is there: before the answer begins.
        first = await run_in_threadpool(lambda: [next(rows), next(rows, "")])
        return StreamingResponse(
            _chained(first, rows),
            media_type="text/tab-separated-values; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="verdicts.tsv"'},
        )

    @app.get("/v1/report")
    async def model_report(asked: Annotated[Since, Query()]) -> Response:
        return _Answer(await run_in_threadpool(report, storage, asked.since))

    def _check_origin(request: Request) -> None:
        """A page in somebody's browser can send a form, but no JSON, to this machine."""
        origin = request.headers.get("origin")
        if origin and origin not in web.cors_origins and content_type_of(request) != JSON:
            raise RequestRefusedError(
                "not from another site's page", status=403, reason="forbidden"
            )

    return app


def _outcome(job_id: str, outcome: Outcome) -> Response:
    headers = {REPLAYED: "true"} if outcome.replayed else {}
    if outcome.record is not None:
        return _Answer(outcome.record.answer(), headers=headers)
    headers |= {"Location": f"/v1/jobs/{quote(job_id)}", "Retry-After": str(_RETRY_SECONDS)}
    told = {"job_id": job_id, "result_id": outcome.result_id, "status": "accepted"}
    return _Answer(told, 202, headers=headers)


def _source_of(content_type: str) -> str:
    """Raises RequestRefusedError (415)."""
    if content_type in _JSON_LINES:
        return "json_lines"
    if content_type == JSON or content_type in _TEXT or content_type.startswith("text/"):
        return "upload"
    raise RequestRefusedError(
        "the body is of another type",
        status=415,
        reason="content_type",
        expected=f"text/plain, {NDJSON}, application/gzip or {JSON} (a reference)",
        got=repr(content_type[:80]),
        next_command="curl --data-binary @job.log …",
    )


def _checked(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise InputError(
            "not a job id",
            where="path",
            expected="1 to 200 characters, no blanks, no slash",
            got=repr(job_id[:80]),
        )
    return job_id


def _job_facts(job_id: str, request: Request, facts: Facts, source: str) -> JobFacts:
    """The query's word wins over the header's. Raises InputError."""
    given = facts.model_dump(exclude_none=True)
    for name in Facts.model_fields:
        header = request.headers.get(f"presage-{name.replace('_', '-')}")
        if header is not None and name not in given:
            given[name] = header
    try:
        read = Facts.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise InputError("a header makes no sense", where=name, got=fault["msg"]) from error
    now = now_utc()
    for name in ("started_at", "finished_at"):
        time = getattr(read, name)
        if time is not None and time > now + _AHEAD:
            raise InputError("a time to come", where=name, got=time.isoformat())
    words = {
        name: None if value is None else mask_words(value)
        for name, value in (
            (name, getattr(read, name)) for name in ("cluster", "node", "device", "user")
        )
    }
    return JobFacts(
        result_id="",
        job_id=_checked(job_id),
        log_sha256="",
        size_bytes=0,
        source=source,
        received_at=now,
        started_at=read.started_at,
        finished_at=read.finished_at,
        **words,
    )


def _wait_seconds(request: Request, answer_seconds: float) -> float:
    """RFC 7240: ``Prefer: respond-async``, or ``wait=10``. A deadline bounds the rest."""
    most: float = min(answer_seconds, request.scope["presage"].deadline_seconds)
    for preference in request.headers.get("prefer", "").split(","):
        if preference.strip().lower() == "respond-async":
            return 0.0
        found = _WAIT.fullmatch(preference.lower())
        if found:
            most = min(most, float(found[1]))
    return most


async def _small_body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _LARGEST_JSON_BYTES:
            raise RequestRefusedError(
                "a reference is small",
                status=413,
                reason="body_size",
                expected=f"at most {_LARGEST_JSON_BYTES} bytes of JSON",
                next_command="send a log as text/plain",
            )
        parts.append(part)
    return b"".join(parts)


def _read_reference(body: bytes) -> Any:
    try:
        return _reference.validate_python(parse_json(body))
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(
            "no reference to a log",
            where=".".join(str(part) for part in fault["loc"]) or "body",
            expected='{"source": "elasticsearch" | "kubernetes" | "file", …}',
            got=fault["msg"],
        ) from error


def _waiting(accepted: AcceptedLogs, job_id: str) -> list[dict[str, Any]]:
    """What is accepted of a job and not diagnosed yet."""
    return [
        {"result_id": facts.result_id, "received_at": facts.received_at, "status": "accepted"}
        for facts in accepted.of_job(job_id)
    ]


def _verdicts(storage: Storage, records: list[JobRecord]) -> dict[str, list[dict[str, Any]]]:
    if not records:
        return {}
    try:
        return verdicts_of(storage, [record.result_id for record in records])
    except ServerUnavailableError:
        return {}


def _judged(book: ResultBook, job_id: str, result_id: str | None) -> JobRecord:
    """The result a verdict is about. Raises RequestRefusedError (404)."""
    for record in book.of_job(job_id):
        if result_id is None or record.result_id == result_id:
            return record
    raise _no_job(job_id)


def _add_verdict(
    book: ResultBook, storage: Storage, record: JobRecord, given: Verdict
) -> dict[str, Any]:
    try:
        return add_verdict(storage, record, given)
    except UnstorableError:
        # Diagnosed a moment ago, and not stored yet.
        if not book.flush(_FLUSH_SECONDS):
            raise ServerUnavailableError("the result is not stored yet") from None
        return add_verdict(storage, record, given)


async def _chained(first: list[str], rest: Iterator[str]) -> AsyncIterator[str]:
    for row in first:
        yield row
    while row := await run_in_threadpool(next, rest, ""):
        yield row


def _no_job(job_id: str) -> RequestRefusedError:
    return RequestRefusedError(
        "no result of this job", status=404, reason="unknown_job", got=repr(job_id[:80])
    )
