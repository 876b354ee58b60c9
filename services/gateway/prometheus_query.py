"""/v1/forecast/query: a PromQL query's series, forecast, beside their history and straight line."""

from __future__ import annotations

import numpy as np
from fastapi import Request, Response
from pydantic import BaseModel

from clients import AsyncMetricForecastClient
from clients.policy import Deadline
from clients.results import Array
from contract.errors import InputError, QueryError, UnknownModelError
from services.forecast_loop.config import PrometheusSettings, seconds
from services.forecast_loop.grid import Grid
from services.forecast_loop.prometheus import Prometheus
from services.gateway import examples
from services.gateway.answers import Horizons, SeriesAnswer, json_response
from services.gateway.asking import SeriesForecast
from services.gateway.context import Gateway, exchange_of
from services.gateway.metric_forecast import API
from services.gateway.requests import QueryBody, check_body
from services.web.body import JSON, parse_json, require_content_type

LARGEST_SERIES = 20
"""Of one query: each comes with its history."""
_ATTEMPTS = 2
Pairs = list[tuple[float, float | None]]


class QueriedSeries(SeriesAnswer):
    labels: dict[str, str]
    history: list[tuple[float, float | None]]
    predict_linear: list[tuple[float, float | None]]


class QueryAnswer(BaseModel):
    results: list[QueriedSeries]
    history: list[tuple[float, float | None]]
    predict_linear: list[tuple[float, float | None]]
    step_seconds: float
    horizon_seconds: list[float]
    model_version: str


def add_forecast_query(gateway: Gateway) -> None:
    """POST /v1/forecast/query, where a Prometheus is configured."""
    routes = _Routes(gateway)
    gateway.add(
        "/v1/forecast/query",
        routes.query,
        API,
        summary="Forecasts of what a PromQL query gives",
        description=f"At most {LARGEST_SERIES} series. `history` and `predict_linear` (Prometheus' "
        "straight line over `linear_window`) are [unix seconds, value]; at the top they are the "
        "first series'. Only servers that the gateway's settings name are asked.",
        **gateway.schemas.describe(
            body=QueryBody,
            body_examples=examples.QUERY_BODIES,
            answer=QueryAnswer,
            answer_example=examples.QUERY_ANSWER,
        ),
    )


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._asker = gateway.asker
        self._urls = gateway.settings.prometheus

    async def query(self, request: Request) -> Response:
        require_content_type(request, JSON)
        body = check_body(QueryBody, parse_json(await request.body()))
        exchange = exchange_of(request)
        url = self._url(body.prometheus)
        client: AsyncMetricForecastClient = self._asker.connections.forecast
        deadline = Deadline(exchange.deadline_seconds)
        signature = await client.describe(body.preset, deadline)

        def read() -> tuple[list[dict[str, str]], Array, Grid]:
            return read_series(
                PrometheusSettings(url=url, timeout_seconds=deadline.seconds, attempts=_ATTEMPTS),
                body.query,
                body.step_seconds,
                signature.context_length,
            )

        labels, values, grid = await self._asker.in_thread(read, deadline.seconds_left)
        rows = await self._asker.forecast(
            list(values),
            step_seconds=float(body.step_seconds),
            preset=body.preset,
            deadline_seconds=deadline.seconds_left,
        )
        answer = Horizons(body.horizons, body.quantiles).render(rows, chinese=exchange.chinese)
        window = seconds(body.linear_window)
        for told, names, series, row in zip(answer["results"], labels, values, rows, strict=True):
            told["labels"] = names
            told["history"] = history(series, grid)
            told["predict_linear"] = straight_line(series, grid, window, row)
        first = answer["results"][0]
        return json_response(
            answer | {"history": first["history"], "predict_linear": first["predict_linear"]}
        )

    def _url(self, name: str | None) -> str:
        """Raises InputError, UnknownModelError: no such server, or none at all."""
        if not self._urls:
            raise UnknownModelError("the gateway knows no Prometheus")
        if name is None:
            return next(iter(self._urls.values()))
        if name not in self._urls:
            raise InputError(
                "no such Prometheus",
                where="body.prometheus",
                expected=" or ".join(self._urls),
                got=repr(name),
            )
        return self._urls[name]


def read_series(
    settings: PrometheusSettings, query: str, step_seconds: int, points: int
) -> tuple[list[dict[str, str]], Array, Grid]:
    """Labels, float32 (series, points), and their moments. Blocking.

    Raises QueryError: refused, nothing, or too many series. ServerError.
    """
    with Prometheus(settings) as prometheus:
        now = prometheus.server_time().now_seconds
        count = prometheus.count(query, now)
        if count > LARGEST_SERIES:
            raise QueryError(
                "too many series",
                reason="too_many",
                where="body.query",
                expected=f"at most {LARGEST_SERIES}",
                got=str(count),
                next_command="narrow it by labels, or sum it up",
            )
        grid = Grid.ending(now, step_seconds, points)
        answer = prometheus.query_range(query, grid)
    if not answer.labels:
        raise QueryError("the query gives nothing", reason="empty", where="body.query")
    keep = slice(0, LARGEST_SERIES)
    return answer.labels[keep], answer.values[keep], grid


def history(series: Array, grid: Grid) -> Pairs:
    """From the first point that is there."""
    known = np.flatnonzero(np.isfinite(series))
    start = int(known[0]) if len(known) else len(series)
    return [
        (
            float(grid.start_seconds + index * grid.step_seconds),
            float(f"{series[index]:.7g}") if np.isfinite(series[index]) else None,
        )
        for index in range(start, len(series))
    ]


def straight_line(series: Array, grid: Grid, window_seconds: int, row: SeriesForecast) -> Pairs:
    """predict_linear: least squares over the window's points, at the forecast's moments."""
    moments = grid.start_seconds + np.arange(len(series)) * grid.step_seconds
    inside = np.isfinite(series) & (moments > grid.end_seconds - window_seconds)
    if inside.sum() < 2 or row.error is not None:
        return []
    # From the end, so that large Unix times do not eat the digits.
    slope, level = np.polyfit(moments[inside] - grid.end_seconds, series[inside], 1)
    ahead = np.arange(1, len(row.median) + 1) * row.step_seconds
    return [
        (float(grid.end_seconds + span), float(f"{level + slope * span:.7g}")) for span in ahead
    ]
