"""Log lines: the seed's /predict, and /v1/logs for batches and streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from clients import LogVerdict
from services.gateway import examples
from services.gateway.answers import (
    LogsAnswer,
    PredictedLine,
    dump,
    json_response,
    predicted_line,
    verdict_facts,
    verdict_row,
)
from services.gateway.context import LARGE_BODY_BYTES, Gateway, exchange_of
from services.gateway.json_lines import JsonLinesAnswer, Line, answer_each
from services.gateway.requests import LineOfStream, LogsBody, PredictLine, check_body
from services.web.body import JSON, parse_json, require_content_type
from services.web.limits import NDJSON

API = "log_anomaly"
_LINES_AT_ONCE = 512


def add_log_anomaly(gateway: Gateway) -> None:
    """/v1/logs, and /predict on this API's own port."""
    routes = _Routes(gateway)
    if gateway.api == API:
        gateway.add(
            "/predict",
            routes.predict,
            API,
            summary="Is one log line abnormal?",
            description="The seed's request. `save_dir` is refused: see /v1/models.",
            **gateway.schemas.describe(
                body=PredictLine,
                body_examples=examples.PREDICT_LINE,
                answer=PredictedLine,
                answer_example=examples.PREDICTED_LINE,
            ),
        )
    gateway.add(
        "/v1/logs",
        routes.logs,
        API,
        summary="Which of up to 10,000 log lines are abnormal?",
        description="Results are in the order of the lines. As "
        f"`{NDJSON}` each line is a log line, answered in order while more come.",
        **gateway.schemas.describe(
            body=LogsBody,
            body_examples=examples.LOGS_BODIES,
            answer=LogsAnswer,
            answer_example=examples.LOGS_ANSWER,
            stream=(LineOfStream, examples.LOGS_STREAM, examples.LOGS_STREAM_ANSWER),
        ),
    )


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asker = gateway.asker

    async def predict(self, request: Request) -> Response:
        require_content_type(request, JSON)
        body = check_body(PredictLine, parse_json(await request.body()))
        [verdict] = await self._asker.classify([body.text], exchange_of(request).deadline_seconds)
        return json_response(predicted_line(body.text, verdict))

    async def logs(self, request: Request) -> Response:
        exchange = exchange_of(request)
        if require_content_type(request, JSON, NDJSON) == NDJSON:
            return self._stream(request)
        raw = await request.body()
        seconds = exchange.deadline_seconds
        if len(raw) > LARGE_BODY_BYTES:
            answer = await self._asker.in_thread(
                lambda: _told(
                    self._asker.classify_large(_read(raw), seconds), chinese=exchange.chinese
                ),
                seconds,
            )
        else:
            verdicts = await self._asker.classify(_read(raw), seconds)
            answer = _told(verdicts, chinese=exchange.chinese)
        return Response(answer, media_type=JSON)

    def _stream(self, request: Request) -> Response:
        exchange = exchange_of(request)

        def read(number: int, raw: bytes) -> str:
            value = parse_json(raw, f"line {number}")
            value = {"text": value} if isinstance(value, str) else value
            return check_body(LineOfStream, value, where=f"line {number}").text

        async def ask(texts: list[str]) -> list[dict[str, Any]]:
            verdicts = await self._asker.classify(texts, exchange.deadline_seconds)
            return [verdict_row(verdict, chinese=exchange.chinese) for verdict in verdicts]

        async def answer(lines: Sequence[Line]) -> list[bytes]:
            return await answer_each(lines, read, ask, dump, chinese=exchange.chinese)

        return JsonLinesAnswer(request, answer, most=_LINES_AT_ONCE, streams=self._gateway.streams)


def _read(raw: bytes) -> list[str]:
    return check_body(LogsBody, parse_json(raw)).lines


def _told(verdicts: Sequence[LogVerdict], *, chinese: bool) -> bytes:
    rows = [verdict_row(verdict, chinese=chinese) for verdict in verdicts]
    return dump({"results": rows, **verdict_facts(verdicts)})
