"""Batches to a stand-in of the client: what is picked, what is refused, when it gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from clients.forecast import ForecastSignature
from clients.results import Array, Forecast
from contract.errors import (
    DeadlineExceededError,
    PresageError,
    QueryError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.forecast_loop.config import TritonSettings
from services.forecast_loop.forecaster import Forecaster, QueryForecast, context_seconds
from services.forecast_loop.reading import StoppedError

SIGNATURE = ForecastSignature(
    model="metric_forecast_12h",
    context_length=288,
    horizon=144,
    quantiles=(0.1, 0.5, 0.9),
    sources=("lstm", "last"),
    unit="input",
    max_batch_size=4,
)
Answer = Callable[[Array], Array]


class FakeClient:
    """Forecasts, at step k, newest value + k (median); one less and one more around it."""

    def __init__(self, change: Callable[[Array], None] | None = None) -> None:
        self.change = change or (lambda median: None)
        self.errors: dict[int, PresageError] = {}
        self.batches: list[int] = []
        self.is_closed = False
        self._lock = threading.Lock()

    def describe(self, preset: str) -> ForecastSignature:
        return SIGNATURE

    def forecast(self, series: Array, *, step_seconds: int, preset: str, on_error: str) -> Forecast:
        with self._lock:
            number = len(self.batches)
            self.batches.append(len(series))
        if number in self.errors:
            raise self.errors[number]
        newest = np.array([row[np.isfinite(row)][-1:] for row in series], dtype=np.float32)
        median = newest + np.arange(1, 145, dtype=np.float32)
        self.change(median)
        source = ["last" if row % 4 == 3 else "lstm" for row in range(len(series))]
        quantiles = {0.1: median - 1, 0.5: median, 0.9: median + 1}
        return Forecast(median, quantiles, source, float(step_seconds), "m", "1")

    def close(self) -> None:
        self.is_closed = True


def make(client: FakeClient, stop: threading.Event | None = None) -> Forecaster:
    settings = TritonSettings(in_flight=1)
    forecaster = Forecaster(settings, stop or threading.Event(), lambda model, seconds: None)
    forecaster._client = client  # type: ignore[assignment]
    return forecaster


def windows(series: int = 10) -> Array:
    """Series i is constantly 1000 i."""
    values = np.repeat(np.arange(series, dtype=np.float32)[:, None] * 1000, 288, axis=1)
    return np.ascontiguousarray(values)


def ask(
    forecaster: Forecaster, values: Array, horizons: tuple[str, ...] = ("1h", "12h")
) -> QueryForecast:
    rows = np.arange(len(values))[::-1]  # any order, as the store has it
    return forecaster.forecast(values, rows, step_seconds=300, horizons=horizons, min_points=30)


def test_each_series_gets_its_own_steps() -> None:
    client = FakeClient()
    found = ask(make(client), windows())
    assert client.batches == [4, 4, 2]
    assert found.rows.tolist() == list(range(9, -1, -1))
    assert found.median.tolist() == [[row * 1000 + 12, row * 1000 + 144] for row in found.rows]
    np.testing.assert_array_equal(found.quantiles[:, :, 0], found.median - 1)
    assert found.sources == {"lstm": 8, "last": 2}
    assert not found.failed
    assert found.step_seconds == 300


def test_short_and_empty_series_are_not_asked_for() -> None:
    values = windows()
    values[2] = np.nan
    values[3, :-29] = np.nan
    values[4, :-30] = np.nan
    found = ask(make(FakeClient()), values)
    assert set(found.rows.tolist()) == set(range(10)) - {2, 3}
    assert found.failed == {"too_few_points": 2}


def test_a_forecast_that_is_not_finite_is_refused() -> None:
    def spoil(median: Array) -> None:
        median[median[:, 0] == 3001, 11] = np.nan  # series 3, its 1h
        median[median[:, 0] == 7001, 50] = np.inf  # series 7, at a step that nobody asked for

    found = ask(make(FakeClient(spoil)), windows())
    assert set(found.rows.tolist()) == set(range(10)) - {3}
    assert found.failed == {"not_finite": 1}


def test_one_bad_batch_harms_only_itself() -> None:
    client = FakeClient()
    client.errors = {1: ServerAnswerError("odd")}
    found = ask(make(client), windows())
    assert found.rows.tolist() == [9, 8, 7, 6, 1, 0]
    assert found.failed == {"answer": 4}
    assert str(found.error) == "odd"
    assert client.is_closed  # what came back may be another version: learn it anew


@pytest.mark.parametrize("error", [ServerUnavailableError("away"), DeadlineExceededError("slow")])
def test_a_server_that_is_away_is_not_asked_batch_by_batch(error: PresageError) -> None:
    client = FakeClient()
    client.errors = {1: error}
    found = ask(make(client), windows(400))
    assert len(client.batches) == 2
    assert len(found.rows) == 4
    assert found.failed == {error.metric_label: 396}
    assert found.error is error


def test_horizons_that_the_model_does_not_reach() -> None:
    for horizon in ("13h", "7m"):
        with pytest.raises(QueryError, match=f"does not forecast {horizon}") as caught:
            ask(make(FakeClient()), windows(), ("1h", horizon))
        assert caught.value.reason == "horizon"


def test_fine_series_are_averaged_and_look_back_as_long() -> None:
    assert context_seconds(SIGNATURE, 300) == 288 * 300
    assert context_seconds(SIGNATURE, 60) == 288 * 300
    assert context_seconds(SIGNATURE, 3600) == 288 * 3600
    found = make(FakeClient()).forecast(
        windows(), np.arange(10), step_seconds=60, horizons=("1h",), min_points=3
    )
    assert found.step_seconds == 300
    assert found.median[1, 0] == 1012  # twelve of the model's steps, not sixty


def test_a_stop_ends_the_asking() -> None:
    stop = threading.Event()
    forecaster = make(FakeClient(), stop)
    stop.set()
    with pytest.raises(StoppedError):
        ask(forecaster, windows())
