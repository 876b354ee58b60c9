"""Answers: horizons and quantiles chosen, NaN as null, rows in error beside the others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from clients import Cause, Diagnosis, EvidenceLine, LogVerdict
from contract.errors import InputError, TextError
from services.forecast_loop.grid import Grid
from services.gateway import answers, examples
from services.gateway.alertmanager import AlertmanagerAnswer, annotations_of
from services.gateway.answers import Horizons, dump
from services.gateway.asking import SeriesForecast
from services.gateway.prometheus_query import QueryAnswer, history, straight_line
from services.gateway.served_models import ServedModelAnswer

STEPS = np.arange(1, 145, dtype=np.float32)
ROW = SeriesForecast({0.1: STEPS * 0.5, 0.5: STEPS, 0.9: STEPS * 2}, "lstm", 300.0, "3")
BAD = SeriesForecast({0.5: STEPS * np.nan}, "", 300.0, "3", error="series too short")


def told(value: Any) -> Any:
    return json.loads(dump(value))


def test_only_the_asked_horizons_and_quantiles() -> None:
    answer = told(Horizons(["1h", "12h"], [0.9]).render([ROW, BAD]))
    assert answer["results"][0]["median"] == [12.0, 144.0]
    assert answer["results"][0]["quantiles"] == {"0.9": [24.0, 288.0]}
    assert answer["results"][1]["error"]["detail"] == "series too short"
    assert answer["horizon_seconds"] == [3600.0, 43200.0]
    assert answer["model_version"] == "3"


def test_all_of_them_by_default() -> None:
    answer = told(Horizons().render([ROW]))
    assert len(answer["results"][0]["median"]) == 144
    assert set(answer["results"][0]["quantiles"]) == {"0.1", "0.5", "0.9"}
    assert answer["horizon_seconds"][-1] == 43_200.0


@pytest.mark.parametrize("horizon", ["13h", "7m", "0s"])
def test_a_horizon_between_steps_or_beyond_is_refused(horizon: str) -> None:
    with pytest.raises(InputError, match="does not forecast this horizon"):
        Horizons([horizon]).render([ROW])


def test_a_quantile_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected 0\.1 0\.5 0\.9, got 0\.95"):
        Horizons(None, [0.95]).render([ROW])


def test_a_line_by_itself() -> None:
    verdict = LogVerdict("anomaly", 0.9000000357, 0.5, model_version="2")
    assert answers.predicted_line("x", verdict) == {
        "text": "x",
        "result": "异常",
        "label": "anomaly",
        "score": 0.9,
        "threshold": 0.5,
        "model_version": "2",
    }
    blank = LogVerdict("normal", float("nan"), 0.5)
    assert answers.predicted_line("", blank)["score"] is None
    with pytest.raises(TextError):
        answers.predicted_line("", LogVerdict(None, 0.0, 0.5, error="not a text"))


CAUSE = Cause(
    "OOM", 0.97, (EvidenceLine(2, " CUDA out of memory "),), {"zh": "减小批量", "en": "less"}
)
DIAGNOSIS = Diagnosis([CAUSE], "OOM", False, {"OOM": 0.97}, "4")


def test_the_seeds_fields_and_its_language() -> None:
    answer = told(answers.predicted_causes(DIAGNOSIS, "zh"))
    assert answer["probabilities"] == {"OOM": 0.97}
    assert answer["actions"] == {"OOM": "减小批量"}
    assert answer["causes"][0]["evidence"] == [{"line_number": 2, "text": " CUDA out of memory "}]
    assert answers.predicted_causes(DIAGNOSIS, "en")["actions"] == {"OOM": "less"}
    assert told(answers.diagnosis_row(DIAGNOSIS, language="en"))["causes"][0]["action"] == {
        "en": "less"
    }


def test_annotations_are_text() -> None:
    annotations = annotations_of(DIAGNOSIS)
    assert annotations["presage_evidence"] == "2: CUDA out of memory"
    assert all(isinstance(value, str) for value in annotations.values())
    unknown = annotations_of(Diagnosis([], None, True, {}, "4"))
    assert unknown["presage_root_cause"] == "unknown"


def test_the_straight_line_is_least_squares_over_its_window() -> None:
    grid = Grid(0, 300, 100)
    series = np.concatenate([np.full(50, 999.0), np.arange(50) * 2.0]).astype(np.float32)
    series[60] = np.nan
    pairs = straight_line(series, grid, 50 * 300, ROW)
    assert pairs[0] == (30_000.0, pytest.approx(100.0))
    assert pairs[-1] == (99 * 300 + 43_200.0, pytest.approx(98 + 2 * 144, rel=1e-5))
    assert straight_line(series, grid, 300, ROW) == []


def test_history_begins_with_its_first_point() -> None:
    series = np.array([np.nan, 1.5, np.nan, 2.5], dtype=np.float32)
    assert history(series, Grid(600, 300, 4)) == [(900.0, 1.5), (1200.0, None), (1500.0, 2.5)]


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (answers.PredictedValue, examples.PREDICTED_VALUE),
        (answers.PredictedLine, examples.PREDICTED_LINE),
        (answers.PredictedCauses, examples.PREDICTED_CAUSES),
        (answers.ForecastAnswer, examples.FORECAST_ANSWER),
        (answers.LogsAnswer, examples.LOGS_ANSWER),
        (answers.DiagnoseAnswer, examples.DIAGNOSE_ANSWER),
        (QueryAnswer, examples.QUERY_ANSWER),
        (AlertmanagerAnswer, examples.ALERTMANAGER_ANSWER),
        *((ServedModelAnswer, one) for one in examples.MODELS_ANSWER),
    ],
)
def test_the_documents_answers_fit_their_schemas(kind: Any, example: Any) -> None:
    kind.model_validate(example)
