"""A forecast as a picture: history, band, predict_linear's line and the threshold of an alert.

``draw`` writes one PNG (matplotlib) and one self-contained HTML page (inline SVG, a few lines of
script for the pointer, no request to anywhere) per series.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contract.errors import DataFileError, InputError
from training.data.metrics_csv import TIME_COLUMNS
from training.data.text_file import read_text
from training.data.time_grid import is_time_like, seconds_of
from training.metric_forecast.benchmark.baselines import predict_linear

LINE_RANGE_SECONDS = 6 * 3600
THRESHOLD_QUANTILE = 0.95
_HISTORY_SECONDS = 3 * 86400
_FEWEST_STEPS = 60
_LONGEST_NAME, _LONGEST_BYTES = 80, 200
_MOST_TICKS = 8
_SPACINGS_SECONDS = tuple(
    unit * many
    for unit, manies in (
        (1, (1, 2, 5, 10, 15, 30)),
        (60, (1, 2, 5, 10, 15, 30)),
        (3600, (1, 2, 3, 6, 12)),
        (86400, (1, 2, 4, 7, 14, 30, 90, 365)),
    )
    for many in manies
)
_PREFIXES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
# How far beyond history and band, in their span, the others may stretch the axis.
_LINE_STRETCH, _THRESHOLD_STRETCH = 0.6, 2.0
DASHES = {"line": (5.0, 3.0), "threshold": (1.5, 2.5)}


@dataclass(frozen=True)
class Picture:
    """What is drawn, in the metric's own unit.

    history: float64 (steps,), NaN = missing, its last step is "now" (x = 0)
    quantiles: {level: float64 (horizon,)}, the first step ahead is x = 1
    line: float64 (fitted steps + horizon,), predict_linear[6h]; it starts at x = line_start
    step_seconds: ≤ 0 where unknown; end_seconds: epoch of "now", None = the axis counts steps
    """

    name: str
    step_seconds: int
    source: str
    history: np.ndarray
    quantiles: Mapping[float, np.ndarray]
    line: np.ndarray
    line_start: int
    threshold: float
    threshold_given: bool
    end_seconds: float | None = None

    @property
    def horizon(self) -> int:
        return len(self.median)

    @property
    def median(self) -> np.ndarray:
        return self.quantiles[0.5]

    @property
    def low(self) -> np.ndarray:
        return self.quantiles[min(self.quantiles)]

    @property
    def high(self) -> np.ndarray:
        return self.quantiles[max(self.quantiles)]

    @property
    def title(self) -> str:
        return f"{self.name} · step {duration(self.step_seconds)} · mostly from: {self.source}"

    @property
    def labels(self) -> dict[str, str]:
        """Legend: what each line is, and where one leaves the picture its value."""
        band = max(self.quantiles) - min(self.quantiles)
        bottom, top = self.limits()
        at_end, line = float(self.line[-1]), "predict_linear[6h]"
        if not bottom <= at_end <= top and math.isfinite(at_end):
            line += f" → {short(at_end)}"
        kind = "given" if self.threshold_given else "95th percentile of history"
        away = "" if bottom <= self.threshold <= top else ", off the picture"
        return {
            "history": "history",
            "forecast": "median forecast",
            "band": f"{band:.0%} band",
            "line": line,
            "threshold": f"threshold {short(self.threshold)} ({kind}{away})",
        }

    @property
    def verdict(self) -> str:
        """When the forecast and the line pass the threshold, in words."""
        return f"median {self._passing(self.median)}; predict_linear[6h] " + self._passing(
            self.line[-self.horizon :]
        )

    def _passing(self, values: np.ndarray) -> str:
        above = np.flatnonzero(values > self.threshold)
        if not len(above):
            return "stays at or below the threshold"
        ahead = int(above[0]) + 1
        if self.step_seconds <= 0:
            return f"is above the threshold in {ahead} step{'s' if ahead > 1 else ''}"
        return f"is above the threshold in {duration(ahead * self.step_seconds)}"

    def limits(self) -> tuple[float, float]:
        """Lowest and highest value of the axis: all of history and band, the rest if near."""
        parts = [self.history, *self.quantiles.values()]
        values = np.concatenate([part[np.isfinite(part)] for part in parts])
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        span = high - low
        if span <= 1e-9 * max(abs(low), abs(high)):
            span = 0.1 * max(abs(low), abs(high)) or 1.0
            low, high = low - span / 2, high + span / 2
        line = self.line[np.isfinite(self.line)]
        bottom = max(float(line.min(initial=low)), low - _LINE_STRETCH * span)
        top = min(float(line.max(initial=high)), high + _LINE_STRETCH * span)
        # A line that leaves is cut off; a threshold out of reach would only flatten the rest.
        if low - _THRESHOLD_STRETCH * span <= self.threshold <= high + _THRESHOLD_STRETCH * span:
            bottom, top = min(bottom, self.threshold), max(top, self.threshold)
        margin = 0.05 * (top - bottom)
        return bottom - margin, top + margin

    def x_ticks(self) -> list[tuple[float, str]]:
        """(steps from now, label): clock times in UTC where they are known, else steps."""
        first, last = 1 - len(self.history), self.horizon
        if self.end_seconds is None or self.step_seconds <= 0:
            return [(x, f"{x:+g}" if x else "now") for x in spaced(first, last, whole=True)]
        start = self.end_seconds + first * self.step_seconds
        end = self.end_seconds + last * self.step_seconds
        spacing = next(
            (one for one in _SPACINGS_SECONDS if (end - start) / one <= _MOST_TICKS),
            _SPACINGS_SECONDS[-1],
        )
        ticks = []
        for at in np.arange(math.ceil(start / spacing), math.floor(end / spacing) + 1) * spacing:
            time = datetime.fromtimestamp(float(at), UTC)
            midnight = at % 86400 == 0
            words = "%d %b" if midnight else ("%H:%M:%S" if spacing < 60 else "%H:%M")
            if spacing >= 90 * 86400:
                words = "%b %Y"
            ticks.append(((float(at) - self.end_seconds) / self.step_seconds, f"{time:{words}}"))
        return ticks

    @property
    def x_label(self) -> str:
        if self.end_seconds is None or self.step_seconds <= 0:
            return f"steps of {duration(self.step_seconds)} from the last one known"
        last = datetime.fromtimestamp(self.end_seconds, UTC)
        return f"UTC, the last step known is {last:%Y-%m-%d %H:%M}"

    def fan(self) -> tuple[np.ndarray, np.ndarray]:
        """Where band and median start, (0,) or (1,), and their x: from "now" if it has a value."""
        last = self.history[-1:]
        start = last if len(last) and np.isfinite(last[0]) else last[:0]
        return start, np.arange(1 - len(start), self.horizon + 1)

    def y_ticks(self) -> list[tuple[float, str]]:
        bottom, top = self.limits()
        at = spaced(bottom, top)
        largest = max(abs(bottom), abs(top))
        spacing = at[1] - at[0] if len(at) > 1 else (top - bottom)
        suffix, unit = next(((s, u) for s, u in _PREFIXES if largest >= 10 * u), ("", 1.0))
        decimals = max(0, -math.floor(math.log10(spacing / unit) + 1e-9))
        if decimals > 6:
            return [(value, f"{value:.10g}") for value in at]
        return [(value, f"{value / unit:.{decimals}f}{suffix}") for value in at]


# What to draw -----------------------------------------------------------------------------------


def make_picture(
    record: Mapping[str, Any],
    values: np.ndarray,
    *,
    threshold: float | None = None,
    end_seconds: float | None = None,
) -> Picture:
    """From ``predict``'s record of a series and the values it was made from.

    values: (steps,) at the record's own step, NaN = missing, metric's unit
    Raises InputError: a threshold that is no number.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(
            "not a threshold", where="--threshold", expected="a finite number", got=f"{threshold:g}"
        )
    history = np.asarray(values, dtype=np.float64)
    finite = history[np.isfinite(history)]
    step, horizon = int(record["step_seconds"]), int(record["horizon"])
    days = _HISTORY_SECONDS // step if step > 0 else 0
    shown = max(_FEWEST_STEPS, min(6 * horizon, max(days, 2 * horizon)))
    fitted = max(1, min(LINE_RANGE_SECONDS // step if step > 0 else 72, shown, len(history)))
    aheads = range(1 - fitted, horizon + 1)
    single = history.astype(np.float32)
    line = [
        predict_linear(single, [len(single)], ahead, step, LINE_RANGE_SECONDS)[0]
        for ahead in (aheads[0], aheads[-1])
    ]
    if threshold is None:
        drawn_threshold = float(np.quantile(finite, THRESHOLD_QUANTILE)) if len(finite) else 0.0
    else:
        drawn_threshold = threshold
    return Picture(
        name=str(record["series"]),
        step_seconds=step,
        source=str(record["source"]),
        history=history[-shown:],
        quantiles={
            float(level): np.asarray(column, dtype=np.float64)
            for level, column in record["quantiles"].items()
        },
        line=np.linspace(line[0], line[1], len(aheads)),
        line_start=aheads[0],
        threshold=drawn_threshold,
        threshold_given=threshold is not None,
        end_seconds=end_seconds,
    )


def last_timestamp(path: Path, steps: int, step_seconds: int) -> float | None:
    """Epoch seconds of a metrics CSV's last step; None where its times are not certain.

    steps, step_seconds: of the series as read; times that do not fit them (a counter, rows that
    were skipped at an end) are not certain.
    """
    try:
        rows = [line.split(",") for line in read_text(path).split("\n") if line.strip()]
    except DataFileError:
        return None
    if len(rows) < 2:
        return None
    names = [cell.strip().strip('"').lower() for cell in rows[0]]
    column = next((names.index(name) for name in TIME_COLUMNS if name in names), 0)
    if names[column] not in TIME_COLUMNS and is_time_like(rows[0][column].strip()):
        names = []
    cells = pd.Series([row[column].strip().strip('"') for row in rows[1 if names else 0 :] if row])
    seconds, counter = seconds_of(cells)
    seconds = seconds[np.isfinite(seconds)]
    if counter or not len(seconds) or step_seconds <= 0:
        return None
    first, last = float(seconds.min()), float(seconds.max())
    fits = round((last - first) / step_seconds) + 1 == steps
    return last if fits and 0 < last < 1e10 else None


# Where it goes ----------------------------------------------------------------------------------


def draw(picture: Picture, folder: Path, taken: set[str]) -> tuple[Path, Path]:
    """Write <folder>/<name>.png and .html; names in ``taken`` get a number, and theirs is added.

    Raises InputError: the folder cannot be written.
    """
    # Both know Picture.
    from training.metric_forecast.picture_page import html_page
    from training.metric_forecast.picture_png import write_png

    stem = free_name(picture.name, taken)
    png, html = folder / f"{stem}.png", folder / f"{stem}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_png(picture, png)
        html.write_text(html_page(picture), encoding="utf-8")
    except OSError as error:
        raise InputError(
            "picture cannot be written",
            where=str(folder),
            expected="a folder that can be written",
            got=error.strerror or str(error),
        ) from error
    return png, html


def free_name(name: str, taken: set[str]) -> str:
    """A file name for any series: letters and digits of any script, ``-``, ``_`` and ``.``."""
    plain = unicodedata.normalize("NFC", name)
    for ending in (".gz", ".csv"):
        plain = plain.removesuffix(ending)
    plain = re.sub(r"[^\w.-]+", "_", plain).lstrip(".-").rstrip(".")
    # 255 bytes are a file system's limit, a letter can be four of them.
    plain = plain[:_LONGEST_NAME].encode()[:_LONGEST_BYTES].decode(errors="ignore") or "series"
    stem, number = plain, 1
    while stem.casefold() in taken:
        number += 1
        stem = f"{plain}-{number}"
    taken.add(stem.casefold())
    return stem


# Small things that both formats share ------------------------------------------------------------


def lone_points(values: np.ndarray) -> np.ndarray:
    """Indices of numbers between two gaps: a line would not show them."""
    there = np.concatenate([[False], np.isfinite(values), [False]])
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])


def spaced(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About six round numbers from low to high."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(power * many for many in (1, 2, 2.5, 5, 10) if power * many >= rough * 0.999)
    if whole:
        spacing = float(max(1, round(spacing)))
    first = math.ceil(low / spacing - 1e-9)
    last = math.floor(high / spacing + 1e-9)
    return [number * spacing for number in range(first, last + 1)]


def short(value: float) -> str:
    """Four digits, with a prefix of thousands: 12.34M."""
    for suffix, unit in _PREFIXES:
        if 10 * unit <= abs(value) < 1e4 * 1e12:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """``5 min``, ``7 h 30 min``, ``2 d``; ``unknown`` for none."""
    if seconds <= 0:
        return "unknown"
    parts = []
    rest = round(seconds)
    for word, unit in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if rest >= unit:
            parts.append(f"{rest // unit} {word}")
            rest %= unit
    return " ".join(parts[:2]) or "0 s"
