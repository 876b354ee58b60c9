"""``Forecaster``: a store's windows to Triton in batches, and back come the steps asked for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from clients.forecast import ForecastSignature, MetricForecastClient
from clients.policy import CallPolicy
from clients.results import Array, Forecast
from clients.series import make_windows
from contract.errors import (
    DeadlineExceededError,
    PresageError,
    QueryError,
    ServerError,
    ServerUnavailableError,
    UnknownModelError,
)
from services.forecast_loop.config import TritonSettings, seconds
from services.forecast_loop.reading import StoppedError

_HOPELESS = (ServerUnavailableError, DeadlineExceededError, UnknownModelError)
"""Errors after which the next batch would only wait for the same: the others are given up."""


@dataclass
class QueryForecast:
    """``rows``: int64 (series,), of the store; only those that were forecast well.

    median: float32 (series, horizons)
    quantiles: float32 (series, horizons, quantiles), empty unless asked for
    sources: how many series each of the model's experts answered
    failed: how many series got no forecast, by reason; ``error`` is the first of the server's
    step_seconds: distance of the model's steps
    """

    rows: Array
    median: Array
    quantiles: Array
    sources: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    error: PresageError | None = None
    step_seconds: int = 0


class Forecaster:
    """Asks the served model ``metric_forecast_<preset>``; ``observe`` gets (model, seconds).

    A batch is one call of the sync client; ``in_flight`` threads make them. After the server was
    away its signature is learned anew: another version may have come back.
    """

    def __init__(
        self,
        settings: TritonSettings,
        stop: threading.Event,
        observe: Callable[[str, float], None],
    ) -> None:
        self.settings = settings
        self._stop = stop
        self._observe = observe
        self._client: MetricForecastClient | None = None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def signature(self) -> ForecastSignature:
        """Context, horizon, quantiles, sources and largest batch, as the server says.

        Raises ServerError, UnknownModelError.
        """
        try:
            return self._connected().describe(self.settings.preset)
        except PresageError:
            self.close()
            raise

    def forecast(
        self,
        values: Array,
        rows: Array,
        *,
        step_seconds: int,
        horizons: Sequence[str],
        min_points: int,
    ) -> QueryForecast:
        """``values``: float32 (all rows, columns), NaN = missing; ``rows``: those to forecast.

        Raises:
            QueryError: the model does not reach a horizon at this step.
            ServerError, UnknownModelError: the server cannot be asked at all.
            StoppedError
        """
        signature = self.signature()
        model_step = model_step_seconds(signature, step_seconds)
        steps = [_horizon_step(signature, model_step, horizon) for horizon in horizons]
        middle = signature.quantiles.index(0.5)
        failed: Counter[str] = Counter()
        enough = _count_points(values, rows) >= min_points
        failed["too_few_points"] = int((~enough).sum())
        rows = rows[enough]
        picked: Array = np.full(
            (len(rows), len(steps), len(signature.quantiles)), np.nan, dtype=np.float32
        )
        answered = np.zeros(len(rows), dtype=bool)
        sources: Counter[str] = Counter()
        errors: list[PresageError] = []
        give_up = threading.Event()

        def ask(start: int) -> tuple[Counter[str], Counter[str]]:
            """(sources, failures) of one batch, whose forecasts it writes into ``picked``."""
            batch = slice(start, start + signature.max_batch_size)
            size = len(rows[batch])
            if self._stop.is_set():
                raise StoppedError
            if give_up.is_set():
                return Counter(), Counter({errors[0].metric_label: size})
            try:
                answer = self._ask(signature, values[rows[batch]], step_seconds)
            except PresageError as error:
                errors.append(error)
                if isinstance(error, _HOPELESS):
                    give_up.set()
                return Counter(), Counter({error.metric_label: size})
            for index, quantile in enumerate(signature.quantiles):
                picked[batch, :, index] = answer.quantiles[quantile][:, steps]
            finite = np.isfinite(picked[batch]).all(axis=(1, 2))
            answered[batch] = finite
            refused = len(answer.errors)
            lost = Counter({"input": refused, "not_finite": size - int(finite.sum()) - refused})
            return Counter(word for word in answer.source if word), lost

        with ThreadPoolExecutor(self.settings.in_flight, "triton") as pool:
            for used, lost in pool.map(ask, range(0, len(rows), signature.max_batch_size)):
                sources.update(used)
                failed.update(lost)
        if any(isinstance(error, (ServerError, UnknownModelError)) for error in errors):
            self.close()
        return QueryForecast(
            rows=rows[answered],
            median=picked[answered, :, middle],
            quantiles=picked[answered],
            sources=sources,
            failed=+failed,
            error=errors[0] if errors else None,
            step_seconds=model_step,
        )

    def _ask(self, signature: ForecastSignature, windows: Array, step_seconds: int) -> Forecast:
        began = time.perf_counter()
        try:
            return self._connected().forecast(
                windows, step_seconds=step_seconds, preset=self.settings.preset, on_error="skip"
            )
        finally:
            self._observe(signature.model, time.perf_counter() - began)

    def _connected(self) -> MetricForecastClient:
        if self._client is None:
            policy = CallPolicy(deadline_seconds=self.settings.deadline_seconds)
            self._client = MetricForecastClient(self.settings.url, policy)
        return self._client


def model_step_seconds(signature: ForecastSignature, step_seconds: int) -> int:
    """Distance of the model's steps: the clients average a fine series before a long context."""
    probe = np.zeros((1, 8), dtype=np.float32)
    windows = make_windows(
        probe, step_seconds=step_seconds, context_length=signature.context_length
    )
    return int(windows.step_seconds)


def context_seconds(signature: ForecastSignature, step_seconds: int) -> int:
    """The span that the model looks back: what a query's history defaults to."""
    return signature.context_length * model_step_seconds(signature, step_seconds)


def _horizon_step(signature: ForecastSignature, model_step: int, horizon: str) -> int:
    """Index of a horizon among the model's steps. Raises QueryError."""
    index, rest = divmod(seconds(horizon), model_step)
    if rest or not 1 <= index <= signature.horizon:
        raise QueryError(
            f"{signature.model} does not forecast {horizon}",
            reason="horizon",
            where="loop.horizons",
            expected=f"a multiple of {model_step} s up to {signature.horizon * model_step} s",
            got=horizon,
        )
    return index - 1


def _count_points(values: Array, rows: Array) -> Array:
    """int64 (rows,): finite points of each window, a block at a time to keep the copies small."""
    counts: Array = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        counts[part] = np.isfinite(values[rows[part]]).sum(axis=1)
    return counts
