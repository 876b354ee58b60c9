"""``MetricForecastClient``: where will these metrics be?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clients._base import AsyncCaller, SyncCaller
from clients._transport import Answer, Call
from clients.results import Array, Forecast
from clients.series import Windows, make_windows
from contract.errors import ServerAnswerError

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
            )
        except (KeyError, ValueError) as error:
            raise ServerAnswerError(
                f"{model}: the server's config lacks the contract's parameters",
                expected="context_length, horizon, quantiles, sources",
                got=", ".join(sorted(parameters)) or "none",
                next_command="publish again: python -m export metric_forecast",
            ) from error


def plan(windows: Windows, signature: ForecastSignature) -> list[Call]:
    """One call for each full batch of good series."""
    good = [i for i in range(len(windows.values)) if i not in windows.errors]
    size = signature.max_batch_size
    calls = []
    for start in range(0, len(good), size):
        rows = windows.values[good[start : start + size]]
        season = np.full((len(rows), 1), windows.season_length, dtype=np.int64)
        calls.append(Call(signature.model, {"series": rows, "season_length": season}, _OUTPUTS))
    return calls


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

    def describe(self, preset: str = "12h") -> ForecastSignature:
        model = MODEL_PREFIX + preset
        return ForecastSignature.from_config(model, self._config(model))

    def forecast(
        self, series: Any, *, step_seconds: float, preset: str = "12h", on_error: str = "raise"
    ) -> Forecast:
        """series: list of number sequences, 2-D array (series, points), or one series.

        Raises:
            SeriesError: a bad series (or, with ``on_error="skip"``, a row of NaN and a reason).
            ServerError and its subclasses.
        """
        signature = self.describe(preset)
        windows = make_windows(
            series,
            step_seconds=step_seconds,
            context_length=signature.context_length,
            on_error=on_error,
        )
        return decode(self._run(plan(windows, signature)), windows, signature)


class AsyncMetricForecastClient(AsyncCaller):
    """The async twin of MetricForecastClient."""

    async def describe(self, preset: str = "12h") -> ForecastSignature:
        model = MODEL_PREFIX + preset
        return ForecastSignature.from_config(model, await self._config(model))

    async def forecast(
        self, series: Any, *, step_seconds: float, preset: str = "12h", on_error: str = "raise"
    ) -> Forecast:
        """See MetricForecastClient.forecast."""
        signature = await self.describe(preset)
        windows = make_windows(
            series,
            step_seconds=step_seconds,
            context_length=signature.context_length,
            on_error=on_error,
        )
        return decode(await self._run(plan(windows, signature)), windows, signature)
