"""What the APIs answer: rendered from results, and described for the OpenAPI documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

from clients import Diagnosis, LogVerdict
from contract.errors import InputError, TextError
from services.forecast_loop.config import seconds
from services.gateway.asking import SeriesForecast
from services.web.problem import problem

RESULTS = {"normal": "正常", "anomaly": "异常"}


class RowError(BaseModel):
    """Why this row has no answer; the others have theirs."""

    code: str
    title: str
    detail: str


class PredictedValue(BaseModel):
    next_value: float
    quantiles: dict[str, float]
    source: str = Field(description="Which expert weighed most.")
    step_seconds: float
    model_version: str


class PredictedLine(BaseModel):
    text: str
    result: Literal["正常", "异常"]
    label: Literal["normal", "anomaly"]
    score: float | None = Field(description="Probability of an anomaly; null for a blank line.")
    threshold: float | None
    model_version: str


class Evidence(BaseModel):
    line_number: int = Field(description="From 1.")
    text: str


class CauseAnswer(BaseModel):
    label: str
    probability: float
    root: bool
    evidence: list[Evidence]
    action: dict[str, str] = Field(description="What to do, by language.")


class PredictedCauses(BaseModel):
    probabilities: dict[str, float]
    actions: dict[str, str] = Field(description="Of the causes found; Chinese unless asked for en.")
    root: str | None
    unknown: bool = Field(description="It failed, and no known cause fits.")
    causes: list[CauseAnswer]
    model_version: str


class SeriesAnswer(BaseModel):
    median: list[float | None] | None = None
    quantiles: dict[str, list[float | None]] | None = None
    source: str | None = None
    error: RowError | None = None


class ForecastAnswer(BaseModel):
    results: list[SeriesAnswer]
    step_seconds: float
    horizon_seconds: list[float]
    model_version: str


class LineAnswer(BaseModel):
    label: Literal["normal", "anomaly"] | None = None
    result: Literal["正常", "异常"] | None = None
    score: float | None = None
    error: RowError | None = None


class LogsAnswer(BaseModel):
    results: list[LineAnswer]
    threshold: float | None
    model_version: str


class DiagnosisAnswer(BaseModel):
    causes: list[CauseAnswer] | None = None
    root: str | None = None
    unknown: bool | None = None
    probabilities: dict[str, float] | None = None
    error: RowError | None = None


class DiagnoseAnswer(BaseModel):
    results: list[DiagnosisAnswer]
    model_version: str


def json_response(value: Any, status: int = 200) -> Response:
    return Response(dump(value), status, media_type="application/json")


def dump(value: Any) -> bytes:
    """NaN becomes null, numpy's arrays lists, float32 its shortest decimals."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def row_error(why: str, *, chinese: bool = False) -> dict[str, str]:
    told = problem(InputError(why), chinese=chinese)
    return {name: told[name] for name in ("code", "title", "detail")}


def predicted_value(one: SeriesForecast) -> dict[str, Any]:
    """Raises InputError: the series could not be forecast."""
    if one.error is not None:
        raise InputError(one.error)
    return {
        "next_value": _finite(one.median[0]),
        "quantiles": {_name(q): _finite(values[0]) for q, values in one.quantiles.items()},
        "source": one.source,
        "step_seconds": one.step_seconds,
        "model_version": one.model_version,
    }


class Horizons:
    """Which steps and quantiles of a forecast are told."""

    def __init__(
        self, horizons: Sequence[str] | None = None, quantiles: Sequence[float] | None = None
    ) -> None:
        self._horizons = horizons
        self._quantiles = quantiles

    def render(self, rows: Sequence[SeriesForecast], *, chinese: bool = False) -> dict[str, Any]:
        """Raises InputError: a horizon or quantile that the model does not have."""
        first = rows[0]
        chosen = self._steps(first)
        steps = np.arange(1, len(first.median) + 1) if chosen is None else chosen
        names = self._names(first)
        return {
            "results": [self._row(row, chosen, names, chinese) for row in rows],
            "step_seconds": first.step_seconds,
            "horizon_seconds": [float(step) * first.step_seconds for step in steps],
            "model_version": first.model_version,
        }

    def _row(
        self,
        row: SeriesForecast,
        chosen: np.ndarray[Any, np.dtype[np.int64]] | None,
        names: Mapping[float, str],
        chinese: bool,
    ) -> dict[str, Any]:
        if row.error is not None:
            return {"error": row_error(row.error, chinese=chinese)}

        def told(values: Any) -> Any:
            return np.ascontiguousarray(values if chosen is None else values[chosen - 1])

        return {
            "median": told(row.median),
            "quantiles": {name: told(row.quantiles[q]) for q, name in names.items()},
            "source": row.source,
        }

    def _steps(self, row: SeriesForecast) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        if self._horizons is None:
            return None
        longest = len(row.median) * row.step_seconds
        steps = []
        for horizon in self._horizons:
            wanted = seconds(horizon)
            if not 0 < wanted <= longest or wanted % row.step_seconds:
                raise InputError(
                    "the model does not forecast this horizon",
                    where="body.horizons",
                    expected=f"a multiple of {row.step_seconds:g} s, at most {longest:g} s",
                    got=horizon,
                )
            steps.append(int(wanted / row.step_seconds))
        return np.array(steps, dtype=np.int64)

    def _names(self, row: SeriesForecast) -> dict[float, str]:
        if self._quantiles is None:
            return {q: _name(q) for q in row.quantiles}
        found = {}
        for wanted in self._quantiles:
            nearest = min(row.quantiles, key=lambda q: abs(q - wanted))
            if abs(nearest - wanted) > 1e-6:
                raise InputError(
                    "the model does not forecast this quantile",
                    where="body.quantiles",
                    expected=" ".join(_name(q) for q in row.quantiles),
                    got=f"{wanted:g}",
                )
            found[nearest] = _name(nearest)
        return found


def verdict_row(verdict: LogVerdict, *, chinese: bool = False) -> dict[str, Any]:
    if verdict.label is None:
        return {"error": row_error(verdict.error or "no answer", chinese=chinese)}
    return {
        "label": verdict.label,
        "result": RESULTS[verdict.label],
        "score": _finite(verdict.score),
    }


def verdict_facts(verdicts: Sequence[LogVerdict]) -> dict[str, Any]:
    """Threshold and version of those that were answered."""
    answered = next((v for v in verdicts if v.label is not None), None)
    return {
        "threshold": None if answered is None else _finite(answered.threshold),
        "model_version": "" if answered is None else answered.model_version,
    }


def predicted_line(text: str, verdict: LogVerdict) -> dict[str, Any]:
    """Raises TextError: the line could not be read."""
    if verdict.label is None:
        raise TextError(verdict.error or "no answer")
    return {"text": text, **verdict_row(verdict), **verdict_facts([verdict])}


def diagnosis_row(
    diagnosis: Diagnosis, *, language: str | None = None, chinese: bool = False
) -> dict[str, Any]:
    if diagnosis.error is not None:
        return {"error": row_error(diagnosis.error, chinese=chinese)}
    return {
        "causes": [
            {
                "label": cause.label,
                "probability": _rounded(cause.probability),
                "root": cause.label == diagnosis.root,
                "evidence": cause.evidence,
                "action": cause.action
                if language is None
                else {k: v for k, v in cause.action.items() if k == language},
            }
            for cause in diagnosis.causes
        ],
        "root": diagnosis.root,
        "unknown": diagnosis.unknown,
        "probabilities": {label: _rounded(p) for label, p in diagnosis.probabilities.items()},
    }


def predicted_causes(diagnosis: Diagnosis, language: str) -> dict[str, Any]:
    """Raises TextError: the log could not be read."""
    if diagnosis.error is not None:
        raise TextError(diagnosis.error)
    row = diagnosis_row(diagnosis)
    return {
        "probabilities": row["probabilities"],
        "actions": {cause.label: cause.action.get(language, "") for cause in diagnosis.causes},
        "root": row["root"],
        "unknown": row["unknown"],
        "causes": row["causes"],
        "model_version": diagnosis.model_version,
    }


def _name(quantile: float) -> str:
    return f"{quantile:g}"


def _finite(number: Any) -> float | None:
    value = float(number)
    return _rounded(value) if np.isfinite(value) else None


def _rounded(value: float) -> float:
    """float32's seven digits, not the seventeen of its double."""
    return float(f"{value:.7g}")
