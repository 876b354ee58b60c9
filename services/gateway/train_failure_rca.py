"""Root causes of failed jobs: the seed's /predict, and /v1/diagnose for batches and streams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fastapi import Request, Response

from clients import Diagnosis
from services.gateway import examples
from services.gateway.answers import (
    DiagnoseAnswer,
    PredictedCauses,
    diagnosis_row,
    dump,
    json_response,
    predicted_causes,
)
from services.gateway.context import LARGE_BODY_BYTES, Gateway, exchange_of, language_of
from services.gateway.json_lines import JsonLinesAnswer, Line, answer_each
from services.gateway.requests import DiagnoseBody, LogOfStream, PredictLog, check_body
from services.web.body import JSON, parse_json, require_content_type
from services.web.limits import NDJSON

API = "train_failure_rca"
_LOGS_AT_ONCE = 8


def add_train_failure_rca(gateway: Gateway) -> None:
    """/v1/diagnose, and /predict on this API's own port."""
    routes = _Routes(gateway)
    if gateway.api == API:
        gateway.add(
            "/predict",
            routes.predict,
            API,
            summary="Why did one job die?",
            description="The seed's request. Actions are Chinese unless Accept-Language prefers "
            "English. `save_dir` is refused: see /v1/models.",
            **gateway.schemas.describe(
                body=PredictLog,
                body_examples=examples.PREDICT_LOG,
                answer=PredictedCauses,
                answer_example=examples.PREDICTED_CAUSES,
            ),
        )
    gateway.add(
        "/v1/diagnose",
        routes.diagnose,
        API,
        summary="Root causes with the lines that prove them, and what to do",
        description="The root first. A log that cannot be read has an `error` in its place. As "
        f"`{NDJSON}` each line is a log, answered in order while more come.",
        **gateway.schemas.describe(
            body=DiagnoseBody,
            body_examples=examples.DIAGNOSE_BODIES,
            answer=DiagnoseAnswer,
            answer_example=examples.DIAGNOSE_ANSWER,
            stream=(LogOfStream, examples.DIAGNOSE_STREAM, examples.DIAGNOSE_STREAM_ANSWER),
        ),
    )


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asker = gateway.asker

    async def predict(self, request: Request) -> Response:
        require_content_type(request, JSON)
        raw = await request.body()
        seconds = exchange_of(request).deadline_seconds
        language = language_of(request, "zh")
        if len(raw) > LARGE_BODY_BYTES:

            def large() -> bytes:
                body = check_body(PredictLog, parse_json(raw))
                [found] = self._asker.diagnose_large([body.text], body.threshold, seconds)
                return dump(predicted_causes(found, language))

            answer = await self._asker.in_thread(large, seconds)
            return Response(answer, media_type=JSON)
        body = check_body(PredictLog, parse_json(raw))
        [diagnosis] = await self._asker.diagnose([body.text], body.threshold, seconds)
        return json_response(predicted_causes(diagnosis, language))

    async def diagnose(self, request: Request) -> Response:
        exchange = exchange_of(request)
        if require_content_type(request, JSON, NDJSON) == NDJSON:
            return self._stream(request)
        raw = await request.body()
        seconds = exchange.deadline_seconds
        if len(raw) > LARGE_BODY_BYTES:

            def large() -> bytes:
                body, texts = _read(raw)
                found = self._asker.diagnose_large(texts, body.threshold, seconds)
                return _told(found, body.language, exchange.chinese)

            answer = await self._asker.in_thread(large, seconds)
        else:
            body, texts = _read(raw)
            found = await self._asker.diagnose(texts, body.threshold, seconds)
            answer = _told(found, body.language, exchange.chinese)
        return Response(answer, media_type=JSON)

    async def _diagnose(
        self, texts: list[str], threshold: float | None, seconds: float
    ) -> list[Diagnosis]:
        if sum(map(len, texts)) <= LARGE_BODY_BYTES:
            return await self._asker.diagnose(texts, threshold, seconds)
        return await self._asker.in_thread(
            lambda: self._asker.diagnose_large(texts, threshold, seconds), seconds
        )

    def _stream(self, request: Request) -> Response:
        exchange = exchange_of(request)

        def read(number: int, raw: bytes) -> LogOfStream:
            value = parse_json(raw, f"line {number}")
            value = {"text": value} if isinstance(value, str) else value
            return check_body(LogOfStream, value, where=f"line {number}")

        async def ask(bodies: list[LogOfStream]) -> list[dict[str, Any]]:
            told: list[dict[str, Any]] = []
            for threshold, group in groupby(bodies, lambda body: body.threshold):
                texts = [body.text for body in group]
                found = await self._diagnose(texts, threshold, exchange.deadline_seconds)
                told += [
                    diagnosis_row(one, chinese=exchange.chinese)
                    | {"model_version": one.model_version}
                    for one in found
                ]
            return told

        async def answer(lines: Sequence[Line]) -> list[bytes]:
            return await answer_each(lines, read, ask, dump, chinese=exchange.chinese)

        return JsonLinesAnswer(request, answer, most=_LOGS_AT_ONCE, streams=self._gateway.streams)


def _read(raw: bytes) -> tuple[DiagnoseBody, list[str]]:
    body = check_body(DiagnoseBody, parse_json(raw))
    return body, [body.text] if body.text is not None else list(body.texts or ())


def _told(found: Sequence[Diagnosis], language: str | None, chinese: bool) -> bytes:
    rows = [diagnosis_row(one, language=language, chinese=chinese) for one in found]
    version = next((one.model_version for one in found if one.model_version), "")
    return dump({"results": rows, "model_version": version})
