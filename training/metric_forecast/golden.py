"""Golden inputs: real windows from the validation parts, with the cases that break exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.metric_forecast.companions import Companions
from training.metric_forecast.data import Series, window_at
from training.metric_forecast.evaluate import validation_origins
from training.metric_forecast.settings import ForecastSettings

ROWS = 96
QUESTIONS = 4


def golden_rows(
    series: Sequence[Series], settings: ForecastSettings, companions: Companions | None = None
) -> dict[str, np.ndarray]:
    """``series`` (ROWS, context), ``season_length`` (ROWS, 1): three quarters as they are, the
    rest the same windows with gaps, short, constant, huge, tiny, negative and without a season;
    ``companions`` (ROWS, companions, context) beside them, if there are any, as broken.
    """
    order = spread_over_families(series)
    rows: list[np.ndarray] = []
    seasons: list[list[int]] = []
    beside: list[np.ndarray] = []
    # Bounded: a series may have nothing to show at any of its origins.
    for i in range(20 * ROWS):
        if len(rows) == ROWS:
            break
        one = order[i % len(order)]
        origins = validation_origins(one, settings.horizon, 0) or [len(one.values)]
        origin = origins[-1 - (i // len(order)) % len(origins)]
        window, season = window_at(one.values, origin, settings.context_length), one.season_length
        if len(rows) % 4 == 3:
            changed, changed_season = _variant(window, season, len(rows) // 4)
            if np.isfinite(changed).any():
                window, season = changed, changed_season
        # Nothing can be said about a window without a point; the clients refuse it.
        if np.isfinite(window).any():
            if companions is not None:
                others = companions.windows(one, origin, settings.context_length)
                beside.append(_broken(others, len(rows)))
            rows.append(window)
            seasons.append([season])
    golden = {
        "series": np.stack(rows).astype(np.float32),
        "season_length": np.array(seasons, dtype=np.int64),
    }
    if companions is not None:
        golden["companions"] = np.stack(beside).astype(np.float32)
    return golden


def _broken(others: np.ndarray, number: int) -> np.ndarray:
    """Half of the rows as they are; the others' first companion as bad as a series can be."""
    if number % 2 == 1 and np.isfinite(others[0]).any():
        others[0], _ = _variant(others[0], 0, number // 2)
        if number % 8 == 7:
            others[1:] = np.nan
    return others


def _variant(window: np.ndarray, season: int, number: int) -> tuple[np.ndarray, int]:
    random = np.random.default_rng(number)
    window, length = window.copy(), len(window)
    finite = window[np.isfinite(window)]
    kind = number % 8
    if len(finite) == 0:
        return window, season
    if kind == 0:
        window[random.random(length) < 0.3] = np.nan
    elif kind == 1:
        start = length // 3
        window[start : start + length // 3] = np.nan
    elif kind == 2:
        window[: length - max(2, length // 8)] = np.nan
    elif kind == 3:
        window[:] = finite[-1]
    elif kind == 4:
        window = window * np.float32(1e12)
    elif kind == 5:
        window = window * np.float32(-1e-9)
    elif kind == 6:
        window[-max(1, length // 20) :] = np.nan
    else:
        season = 0
    return window, season


def golden_questions(series: Sequence[Series], settings: ForecastSettings) -> list[dict[str, Any]]:
    """Series as a user would send them; null is a missing point."""
    questions = []
    for one in spread_over_families(series):
        origin = len(one.values) - settings.horizon
        window = window_at(one.values, origin, settings.context_length)
        finite = window[np.isfinite(window)]
        if len(finite) < len(window) // 2 or finite.max() == finite.min():
            continue
        first = int(np.argmax(np.isfinite(window)))
        questions.append(
            {
                "name": f"{one.family}/{one.name}",
                "step_seconds": one.step_seconds,
                "unit": "the metric's own",
                "values": [
                    float(value) if np.isfinite(value) else None for value in window[first:]
                ],
            }
        )
        if len(questions) == QUESTIONS:
            break
    return questions


def spread_over_families(series: Sequence[Series]) -> list[Series]:
    """Systems in turn: one series of each family, system by system, then their further ones."""
    seen: dict[tuple[str, str], int] = {}
    keyed = []
    for i, one in enumerate(series):
        turn = seen.get((one.family, one.system), 0)
        seen[one.family, one.system] = turn + 1
        keyed.append((turn, i, one))
    systems: dict[str, list[str]] = {}
    for _, _, one in keyed:
        names = systems.setdefault(one.family, [])
        if one.system not in names:
            names.append(one.system)
    keyed.sort(key=lambda item: (item[0], systems[item[2].family].index(item[2].system), item[1]))
    return [one for _, _, one in keyed]
