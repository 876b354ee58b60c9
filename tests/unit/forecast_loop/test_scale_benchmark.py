"""The benchmark's recorded answers are Prometheus', and its table says what was measured."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from loadtest.services.forecast_loop_scale import (
    ScaleRow,
    ScaleSettings,
    growth_exponent,
    scale_table,
)
from loadtest.services.forecast_loop_source import METRIC, SHARD_LABEL, RecordedPrometheus, value_at
from services.forecast_loop.config import PrometheusSettings, Query
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.reading import QueryReader
from services.forecast_loop.series_store import SeriesStore


def row(series: int, seconds: float) -> ScaleRow:
    return ScaleRow(
        "recorded", series, series - 1, 1.0, 2.0, 0.5, 0.1, seconds - 0.1, 10**6, 10**8, 1.0
    )


def test_growth() -> None:
    rows = [row(n, 0.003 * n**1.5) for n in (1_000, 5_000, 20_000)]
    assert growth_exponent(rows) == pytest.approx(1.5)
    assert math.isnan(growth_exponent(rows[:1]))
    table = scale_table(rows, ScaleSettings("grpc://x:1"))
    assert "total ~ series^1.50" in table
    assert "3 series without a forecast" in table


def test_recorded_answers_are_read_as_prometheus_own() -> None:
    query = Query(metric=METRIC, labels=("clu_name", "group"), shard_by=SHARD_LABEL, shard_values=1)
    store = SeriesStore(
        query.labels, columns=12, step_seconds=300, max_series=3_000, fresh_columns=2
    )
    with (
        RecordedPrometheus(2_500) as recorded,
        Prometheus(PrometheusSettings(url=recorded.url)) as prometheus,
    ):
        told = prometheus.server_time()
        reader = QueryReader(query, prometheus, threading.Event())
        report = reader.read(store, told.now_seconds)
    assert abs(told.now_seconds - time.time()) < 5
    assert (report.series, report.answers) == (2_500, 4)
    assert not report.oddities.counts
    assert np.isfinite(store.values[: len(store)]).all()
    index = store.row(("c0001", "group-001234"))
    assert index is not None
    assert store.end_seconds is not None
    expected = np.float32(value_at(1234 % 64, store.end_seconds))
    assert store.values[index, -1] == expected
