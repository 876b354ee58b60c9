"""What the APIs take and refuse, and that the documents say the same."""

from __future__ import annotations

from typing import Any

import pytest

from contract.errors import InputError, RequestRefusedError
from services.gateway import examples
from services.gateway.alertmanager import AlertmanagerWebhook
from services.gateway.requests import (
    DiagnoseBody,
    ForecastBody,
    LogsBody,
    PredictLine,
    PredictLog,
    PredictSeries,
    QueryBody,
    check_body,
)

SERIES = [1.0] * 30


def test_the_seed_may_not_choose_what_is_loaded() -> None:
    with pytest.raises(InputError, match=r"save_dir is refused: .* must not choose"):
        check_body(PredictSeries, {"series": SERIES, "save_dir": "/models/other"})


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (PredictSeries, {"series": [1.0] * 29}),
        (PredictSeries, {"series": ["1"] * 30}),
        (PredictSeries, {"series": [True] * 30}),
        (PredictSeries, {"series": SERIES, "step_seconds": 0}),
        (PredictSeries, {"series": SERIES, "model": "x"}),
        (PredictSeries, [SERIES]),
        (PredictLine, {"text": 1}),
        (PredictLog, {"text": "x", "threshold": 1}),
        (PredictLog, {"text": "x", "threshold": "0.5"}),
        (ForecastBody, {}),
        (ForecastBody, {"series": [[1.0]], "csv": "1"}),
        (ForecastBody, {"series": [[]]}),
        (ForecastBody, {"series": [[1.0]], "preset": "24h"}),
        (ForecastBody, {"series": [[1.0]], "horizons": ["1 hour"]}),
        (DiagnoseBody, {"text": "a", "texts": ["b"]}),
        (LogsBody, {"lines": "one line"}),
        (LogsBody, {"lines": []}),
        (QueryBody, {"query": ""}),
        (AlertmanagerWebhook, {"alerts": [{"labels": {"a": 1}}]}),
    ],
)
def test_what_makes_no_sense_is_named(body: Any, value: Any) -> None:
    with pytest.raises(InputError, match=r"does not fit.* at body"):
        check_body(body, value)


def test_more_rows_than_a_batch_is_too_large() -> None:
    for body, value in (
        (LogsBody, {"lines": ["x"] * 10_001}),
        (ForecastBody, {"series": [[1.0]] * 10_001}),
        (DiagnoseBody, {"texts": ["x"] * 10_001}),
    ):
        with pytest.raises(RequestRefusedError) as refused:
            check_body(body, value)
        assert refused.value.status == 413
    assert len(check_body(LogsBody, {"lines": ["x"] * 10_000}).lines) == 10_000


@pytest.mark.parametrize(
    ("body", "given"),
    [
        (PredictSeries, examples.PREDICT_SERIES),
        (PredictLine, examples.PREDICT_LINE),
        (PredictLog, examples.PREDICT_LOG),
        (ForecastBody, examples.FORECAST_BODIES),
        (QueryBody, examples.QUERY_BODIES),
        (LogsBody, examples.LOGS_BODIES),
        (DiagnoseBody, examples.DIAGNOSE_BODIES),
        (AlertmanagerWebhook, examples.ALERTMANAGER_BODIES),
    ],
)
def test_the_documents_examples_are_taken(body: Any, given: dict[str, Any]) -> None:
    for value in given.values():
        check_body(body, value)
