"""Forecasts: the seed's /predict, and /v1/forecast for batches, streams, CSV and PromQL."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fastapi import Request, Response

from clients.csv_series import read_csv_series
from contract.errors import InputError
from services.gateway import examples
from services.gateway.answers import (
    ForecastAnswer,
    Horizons,
    PredictedValue,
    dump,
    json_response,
    predicted_value,
    row_error,
)
from services.gateway.asking import SeriesForecast
from services.gateway.context import LARGE_BODY_BYTES, Gateway, exchange_of
from services.gateway.json_lines import JsonLinesAnswer, Line, answer_each
from services.gateway.requests import (
    ForecastBody,
    PredictSeries,
    SeriesOfStream,
    check_body,
)
from services.web.body import JSON, parse_json, require_content_type
from services.web.limits import NDJSON

API = "metric_forecast"
DEFAULT_STEP_SECONDS = 300.0
_LINES_AT_ONCE = 256


def add_metric_forecast(gateway: Gateway) -> None:
    """/v1/forecast, and /predict on this API's own port."""
    routes = _Routes(gateway)
    if gateway.api == API:
        gateway.add(
            "/predict",
            routes.predict,
            API,
            summary="The next value of one series",
            description="The seed's request. `save_dir` is refused: see /v1/models.",
            **gateway.schemas.describe(
                body=PredictSeries,
                body_examples=examples.PREDICT_SERIES,
                answer=PredictedValue,
                answer_example=examples.PREDICTED_VALUE,
            ),
        )
    gateway.add(
        "/v1/forecast",
        routes.forecast,
        API,
        summary="Forecasts of up to 10,000 series",
        description="A bad series has an `error` in its place and does not lose the others. As "
        f"`{NDJSON}` each line is a series, answered in order while more come.",
        **gateway.schemas.describe(
            body=ForecastBody,
            body_examples=examples.FORECAST_BODIES,
            answer=ForecastAnswer,
            answer_example=examples.FORECAST_ANSWER,
            stream=(SeriesOfStream, examples.FORECAST_STREAM, examples.FORECAST_STREAM_ANSWER),
        ),
    )


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asker = gateway.asker

    async def predict(self, request: Request) -> Response:
        require_content_type(request, JSON)
        body = check_body(PredictSeries, parse_json(await request.body()))
        [one] = await self._asker.forecast(
            [body.series],
            step_seconds=body.step_seconds,
            preset="next",
            deadline_seconds=exchange_of(request).deadline_seconds,
        )
        return json_response(predicted_value(one))

    async def forecast(self, request: Request) -> Response:
        exchange = exchange_of(request)
        if require_content_type(request, JSON, NDJSON) == NDJSON:
            return self._stream(request)
        raw = await request.body()
        seconds = exchange.deadline_seconds
        if len(raw) > LARGE_BODY_BYTES:
            answer = await self._asker.in_thread(
                lambda: self._large(raw, seconds, exchange.chinese), seconds
            )
            return Response(answer, media_type=JSON)
        series, step_seconds, body = _read(raw)
        rows = await self._asker.forecast(
            series, step_seconds=step_seconds, preset=body.preset, deadline_seconds=seconds
        )
        horizons = Horizons(body.horizons, body.quantiles)
        return json_response(horizons.render(rows, chinese=exchange.chinese))

    def _large(self, raw: bytes, deadline_seconds: float, chinese: bool) -> bytes:
        series, step_seconds, body = _read(raw)
        rows = self._asker.forecast_large(
            series,
            step_seconds=step_seconds,
            preset=body.preset,
            deadline_seconds=deadline_seconds,
        )
        return dump(Horizons(body.horizons, body.quantiles).render(rows, chinese=chinese))

    def _stream(self, request: Request) -> Response:
        exchange = exchange_of(request)

        def read(number: int, raw: bytes) -> SeriesOfStream:
            value = parse_json(raw, f"line {number}")
            value = {"series": value} if isinstance(value, list) else value
            return check_body(SeriesOfStream, value, where=f"line {number}")

        async def ask(bodies: list[SeriesOfStream]) -> list[dict[str, Any]]:
            told: list[dict[str, Any]] = []
            # Neighbours of one kind are asked together, and stay in order.
            for (preset, step), group in groupby(bodies, lambda b: (b.preset, b.step_seconds)):
                rows = await self._asker.forecast(
                    [body.series for body in group],
                    step_seconds=step,
                    preset=preset,
                    deadline_seconds=exchange.deadline_seconds,
                )
                told += _told_rows(rows, exchange.chinese)
            return told

        async def answer(lines: Sequence[Line]) -> list[bytes]:
            return await answer_each(lines, read, ask, dump, chinese=exchange.chinese)

        return JsonLinesAnswer(request, answer, most=_LINES_AT_ONCE, streams=self._gateway.streams)


def _told_rows(rows: Sequence[SeriesForecast], chinese: bool) -> list[dict[str, Any]]:
    told = []
    for row in rows:
        if row.error is not None:
            told.append({"error": row_error(row.error, chinese=chinese)})
            continue
        rendered = Horizons().render([row])
        facts = {"step_seconds": row.step_seconds, "model_version": row.model_version}
        told.append(rendered["results"][0] | facts)
    return told


def _read(raw: bytes) -> tuple[list[Any], float, ForecastBody]:
    """Series, their step, and the whole body. Raises InputError, RequestRefusedError."""
    body = check_body(ForecastBody, parse_json(raw))
    if body.csv is None:
        assert body.series is not None
        return list(body.series), body.step_seconds or DEFAULT_STEP_SECONDS, body
    found = read_csv_series("csv", body.csv)
    step_seconds = body.step_seconds or found.step_seconds or DEFAULT_STEP_SECONDS
    if not found.values:
        raise InputError("no rows", where="body.csv", expected="timestamp,value rows")
    return [found.values], step_seconds, body
