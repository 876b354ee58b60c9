"""Answers from a run folder without any server; also loads its network."""

from __future__ import annotations

import json
import math
import pickle
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.errors import ArtifactCorruptError, InputError, SeriesError
from training.artifact import Artifact
from training.data.metrics_csv import MetricSeries, read_metrics_csv
from training.data.row_report import RowReport
from training.metric_forecast.data import (
    COARSE_STEP_SECONDS,
    averaged,
    season_length_of,
    window_at,
)
from training.metric_forecast.graph import sources_of
from training.metric_forecast.network import LSTMForecast
from training.metric_forecast.settings import ForecastSettings
from training.metric_forecast.train import METADATA_FILE, WEIGHTS_FILE
from training.metric_forecast.window import LARGEST_MAGNITUDE


def load_network(artifact: Artifact) -> LSTMForecast:
    """The run's network in eval mode. Raises ArtifactCorruptError."""
    path = artifact.path / METADATA_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["architecture"]
        network = LSTMForecast(ForecastSettings.from_json(stored))
        path = artifact.path / WEIGHTS_FILE
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        pickle.UnpicklingError,
    ) as error:
        raise ArtifactCorruptError(
            "forecast network cannot be loaded",
            where=str(path),
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            next_command="train again: python -m training train metric_forecast",
        ) from error
    return network.eval()


def predict(artifact: Artifact, arguments: Namespace) -> Iterator[Mapping[str, Any]]:
    """One record per file; a file that cannot be forecast gives ``error`` and harms no other."""
    if getattr(arguments, "threshold", None) is not None and arguments.plot is None:
        raise InputError(
            "a threshold that nothing draws", where="--threshold", expected="--plot FOLDER with it"
        )
    network = load_network(artifact)
    taken: set[str] = set()
    for path in arguments.files:
        report = RowReport()
        try:
            read = read_metrics_csv(path, report)
            step = arguments.step_seconds or read.step_seconds
            beside = list(read.values[:, 1 : 1 + network.settings.companions].T)
            record = forecast_one(network, read.values[:, 0], step, path.name, beside)
            if getattr(arguments, "plot", None) is not None:
                record["picture"] = _plot(record, path, read, step, arguments, taken)
        except InputError as error:
            yield {"series": str(path), "error": str(error)}
            continue
        if report.skipped:
            record["notes"].append(report.describe())
        yield record


def _plot(
    record: Mapping[str, Any],
    path: Path,
    read: MetricSeries,
    step: int,
    arguments: Namespace,
    taken: set[str],
) -> list[str]:
    """Paths of the PNG and the HTML page. Raises InputError."""
    from training.metric_forecast.picture import draw, last_timestamp, make_picture

    values = checked(read.values[:, 0], path.name)
    if record["step_seconds"] != step:
        values = averaged(values, record["step_seconds"] // step)
    picture = make_picture(
        record,
        values,
        threshold=arguments.threshold,
        end_seconds=last_timestamp(path, len(read.values), step),
    )
    return [str(file) for file in draw(picture, arguments.plot, taken)]


def forecast_one(
    network: LSTMForecast,
    values: np.ndarray,
    step_seconds: int,
    name: str,
    companions: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """JSON-able forecast of one series (steps,), read beside at most ``settings.companions`` others
    that end where it ends. Raises SeriesError.
    """
    settings = network.settings
    values = checked(values, name)
    notes = []
    factor = COARSE_STEP_SECONDS // step_seconds if step_seconds > 0 else 1
    if settings.horizon == 144 and factor > 1 and COARSE_STEP_SECONDS % step_seconds == 0:
        notes.append(f"averaged from {step_seconds} s to {COARSE_STEP_SECONDS} s steps")
        values, step_seconds = averaged(values, factor), COARSE_STEP_SECONDS
        values = checked(values, name)
        companions = [averaged(np.asarray(one), factor) for one in companions]
    if len(values) > settings.context_length:
        notes.append(f"only the newest {settings.context_length} of {len(values)} steps are read")
    window = window_at(values, len(values), settings.context_length)
    if not np.isfinite(window).any():
        raise SeriesError(
            "no number among the newest steps",
            where=name,
            expected=f"at least one in the last {settings.context_length} steps",
            got="all missing",
        )
    season = season_length_of(step_seconds)
    with torch.inference_mode():
        inputs = [torch.from_numpy(window[None]), torch.tensor([[season]])]
        if settings.companions:
            beside = np.full((settings.companions, settings.context_length), np.nan, np.float32)
            for row, one in zip(beside, companions, strict=False):
                row[:] = window_at(np.asarray(one), len(one), settings.context_length)
            inputs.append(torch.from_numpy(beside[None]))
        forecast, source = network(*inputs)
    answer = forecast[0].numpy()
    return {
        "series": name,
        "step_seconds": step_seconds,
        "horizon": settings.horizon,
        "source": sources_of(settings.companions)[int(source[0, 0])],
        "median": answer[:, settings.median_index].tolist(),
        "quantiles": {
            f"{quantile:g}": answer[:, i].tolist() for i, quantile in enumerate(settings.quantiles)
        },
        "notes": notes,
    }


def checked(values: np.ndarray, name: str) -> np.ndarray:
    """float32 (steps,). Raises SeriesError: empty, wrong shape, infinite, missing, no number."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SeriesError("not numbers", where=name, got=str(error)) from error
    if numbers.ndim != 1:
        raise SeriesError(
            "not one series", where=name, expected="one channel", got=f"shape {numbers.shape}"
        )
    if len(numbers) == 0:
        raise SeriesError("empty series", where=name, expected="at least one number")
    wild = np.flatnonzero(np.abs(numbers) > LARGEST_MAGNITUDE)
    if len(wild):
        got = numbers[wild[0]]
        raise SeriesError(
            "infinite value" if math.isinf(got) else "value too large",
            where=f"{name}, step {wild[0]}",
            expected=f"magnitude up to {LARGEST_MAGNITUDE:g}, NaN for a missing step",
            got=f"{got:g}",
        )
    if not np.isfinite(numbers).any():
        raise SeriesError("nothing but missing values", where=name, expected="at least one number")
    return numbers.astype(np.float32)
