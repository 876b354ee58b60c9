"""``MetricForecastClient``: where will these metrics be?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients._base import AsyncCaller, SyncCaller
from clients._transport import Answer, Call
from clients.policy import Deadline
from clients.results import Array, Forecast
from clients.series import Windows, make_windows
from contract.errors import SeriesError, ServerAnswerError

MODEL_PREFIX = "metric_forecast_"
_OUTPUTS = ("forecast", "source")


@dataclass(frozen=True)
class ForecastSignature:
    """What the server says of one forecast model."""

    model: str
    context_length: int
    horizon: int
    quantiles: tuple[float, ...]
    sources: tuple[str, ...]
    unit: str
    max_batch_size: int
    # How many companion signals it reads beside each series; 0: it takes none.
    companions: int = 0

    @classmethod
    def from_config(cls, model: str, config: dict[str, Any]) -> ForecastSignature:
        """Read Triton's model config. Raises ServerAnswerError when facts are missing."""
        parameters = {
            key: value.get("string_value", "")
            for key, value in config.get("parameters", {}).items()
        }
        try:
            return cls(
                model=model,
                context_length=int(parameters["context_length"]),
                horizon=int(parameters["horizon"]),
                quantiles=tuple(float(q) for q in parameters["quantiles"].split(",")),
                sources=tuple(parameters["sources"].split(",")),
                unit=parameters.get("unit", "input"),
                max_batch_size=max(1, int(config.get("max_batch_size", 0))),
                companions=int(parameters.get("companions", "0")),
            )
        except (KeyError, ValueError) as error:
            raise ServerAnswerError(
                f"{model}: the server's config lacks the contract's parameters",
                expected="context_length, horizon, quantiles, sources",
                got=", ".join(sorted(parameters)) or "none",
                next_command="publish again: python -m export metric_forecast",
            ) from error


def plan(
    windows: Windows, signature: ForecastSignature, companions: Array | None = None
) -> list[Call]:
    """One call for each full batch of good series; ``companions`` as ``companion_windows``."""
    good = [i for i in range(len(windows.values)) if i not in windows.errors]
    size = signature.max_batch_size
    calls = []
    for start in range(0, len(good), size):
        chosen = good[start : start + size]
        rows = windows.values[chosen]
        season = np.full((len(rows), 1), windows.season_length, dtype=np.int64)
        inputs: dict[str, Array] = {"series": rows, "season_length": season}
        if companions is not None:
            inputs["companions"] = companions[chosen]
        calls.append(Call(signature.model, inputs, _OUTPUTS))
    return calls


def companion_windows(
    companions: Sequence[Sequence[Any]] | None,
    *,
    number: int,
    step_seconds: float,
    signature: ForecastSignature,
) -> Array | None:
    """float32 (series, companions, context_length), NaN = missing; None for a model without.

    companions: for each of the ``number`` series its companions, each of the same step and ending
    where the series ends; None for one that is missing

    Raises:
        SeriesError: too many, or a bad one, or a model that takes none.
    """
    if not signature.companions:
        if companions is None:
            return None
        raise SeriesError(
            "the model takes no companions",
            where=signature.model,
            next_command="leave companions out, or ask a model trained with --companions",
        )
    shape = (number, signature.companions, signature.context_length)
    windows: Array = np.full(shape, np.nan, dtype=np.float32)
    if companions is None:
        return windows
    if len(companions) != number:
        raise SeriesError(
            "companions of other series",
            where="companions",
            expected=f"one list for each of {number} series",
            got=f"{len(companions)} lists",
        )
    for row, own in enumerate(companions):
        if len(own) > signature.companions:
            raise SeriesError(
                "too many companions",
                where=f"companions of series {row}",
                expected=f"at most {signature.companions}",
                got=str(len(own)),
            )
        for column, one in enumerate(own):
            if one is not None:
                windows[row, column] = _companion(one, row, column, step_seconds, signature)
    return windows


def _companion(
    one: Any, row: int, column: int, step_seconds: float, signature: ForecastSignature
) -> Array:
    try:
        found = make_windows(
            [one], step_seconds=step_seconds, context_length=signature.context_length
        )
    except SeriesError as error:
        raise SeriesError(
            "bad companion", where=f"companion {column} of series {row}", got=str(error)
        ) from error
    window: Array = found.values[0]
    return window


def decode(answers: list[Answer], windows: Windows, signature: ForecastSignature) -> Forecast:
    """Put the answers back beside their series. Raises ServerAnswerError."""
    good = [i for i in range(len(windows.values)) if i not in windows.errors]
    shape = (len(windows.values), signature.horizon, len(signature.quantiles))
    values: Array = np.full(shape, np.nan, dtype=np.float32)
    source = ["" for _ in windows.values]
    if answers:
        rows = np.concatenate([answer.outputs["forecast"] for answer in answers])
        if rows.shape != (len(good), *shape[1:]):
            raise ServerAnswerError(
                f"{signature.model}: answer of another shape",
                expected=str((len(good), *shape[1:])),
                got=str(rows.shape),
            )
        values[good] = rows
        chosen = np.concatenate([answer.outputs["source"].reshape(-1) for answer in answers])
        for index, number in zip(good, chosen, strict=True):
            source[index] = signature.sources[int(number)]
    by_quantile = {q: values[:, :, i] for i, q in enumerate(signature.quantiles)}
    return Forecast(
        median=by_quantile[0.5],
        quantiles=by_quantile,
        source=source,
        step_seconds=windows.step_seconds,
        model=signature.model,
        model_version=answers[0].model_version if answers else "",
        errors=windows.errors,
    )


class MetricForecastClient(SyncCaller):
    """Forecasts series of any lengths.

    Example::

        with MetricForecastClient("grpc://127.0.0.1:9001") as client:
            forecast = client.forecast(series, step_seconds=60, preset="12h")
            print(forecast.median[0, -1], forecast.source[0])
    """

    def describe(self, preset: str = "12h", deadline: Deadline | None = None) -> ForecastSignature:
        model = MODEL_PREFIX + preset
        return ForecastSignature.from_config(model, self._config(model, deadline))

    def forecast(
        self,
        series: Any,
        *,
        step_seconds: float,
        preset: str = "12h",
        on_error: str = "raise",
        companions: Sequence[Sequence[Any]] | None = None,
        deadline_seconds: float | None = None,
    ) -> Forecast:
        """series: list of number sequences, 2-D array (series, points), or one series.
        companions: for a model that reads them, a list of series beside each, see
        ``companion_windows``. deadline_seconds: of this call; None is the policy's.

        Raises:
            SeriesError: a bad series (or, with ``on_error="skip"``, a row of NaN and a reason).
            ServerError and its subclasses.
        """
        deadline = self.policy.deadline(deadline_seconds)
        signature = self.describe(preset, deadline)
        windows = make_windows(
            series,
            step_seconds=step_seconds,
            context_length=signature.context_length,
            on_error=on_error,
        )
        beside = companion_windows(
            companions, number=len(windows.values), step_seconds=step_seconds, signature=signature
        )
        calls = plan(windows, signature, beside)
        return decode(self._run(calls, deadline), windows, signature)


class AsyncMetricForecastClient(AsyncCaller):
    """The async twin of MetricForecastClient."""

    async def describe(
        self, preset: str = "12h", deadline: Deadline | None = None
    ) -> ForecastSignature:
        model = MODEL_PREFIX + preset
        return ForecastSignature.from_config(model, await self._config(model, deadline))

    async def forecast(
        self,
        series: Any,
        *,
        step_seconds: float,
        preset: str = "12h",
        on_error: str = "raise",
        companions: Sequence[Sequence[Any]] | None = None,
        deadline_seconds: float | None = None,
    ) -> Forecast:
        """See MetricForecastClient.forecast."""
        deadline = self.policy.deadline(deadline_seconds)
        signature = await self.describe(preset, deadline)
        windows = make_windows(
            series,
            step_seconds=step_seconds,
            context_length=signature.context_length,
            on_error=on_error,
        )
        beside = companion_windows(
            companions, number=len(windows.values), step_seconds=step_seconds, signature=signature
        )
        calls = plan(windows, signature, beside)
        return decode(await self._run(calls, deadline), windows, signature)
