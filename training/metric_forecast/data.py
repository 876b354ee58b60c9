"""Series for the forecaster: read from a data source, put on one step, split in time, windowed."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from contract.errors import DataFileError
from contract.manifest import DataFile, sha256_of
from training.data.metrics_csv import read_metrics_csv
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.metric_forecast.generate import KINDS, STEP_SECONDS, generate

TRAIN_SHARE = 0.8
# Finer steps are averaged to this one: 12 hours are then 144 steps.
COARSE_STEP_SECONDS = 300
LEAD_SECONDS = 12 * 3600
_DAY_SECONDS = 86400
_SHORTEST = 48
_SERIES_PER_GENERATED_KIND = 8


@dataclass(frozen=True)
class Series:
    """One univariate metric. values: float32 (steps,), own unit, NaN = missing."""

    name: str
    family: str
    system: str
    step_seconds: int
    values: np.ndarray
    path: str

    @property
    def season_length(self) -> int:
        """Steps a day; 0 where the step is unknown or does not divide a day."""
        return season_length_of(self.step_seconds)

    @property
    def split(self) -> int:
        """First step of the validation part."""
        return int(TRAIN_SHARE * len(self.values))

    def lead_steps(self, horizon: int) -> int:
        """Steps of 12 hours, at most the horizon."""
        if self.step_seconds <= 0:
            return horizon
        return max(1, min(horizon, LEAD_SECONDS // self.step_seconds))


def season_length_of(step_seconds: float) -> int:
    """Steps a day, 0 if there is no whole number of them (or fewer than two)."""
    if step_seconds <= 0 or _DAY_SECONDS % step_seconds:
        return 0
    steps = int(_DAY_SECONDS // step_seconds)
    return steps if steps >= 2 else 0


def read_series(
    source: DataSource, report: RowReport, *, progress: bool = False
) -> tuple[list[Series], list[DataFile]]:
    """Every usable series of the source, and what it was read from.

    Raises:
        DataFileError: nothing usable, or a bad row with ``report.strict``.
    """
    if source.root is None:
        generated = _generated()
        report.accept(sum(len(one.values) for one in generated[0]))
        return generated
    root = source.root
    if source.origin == "file":
        paths, base = [root], root.parent
    else:
        base = root
        folder = root / "metrics" if (root / "metrics").is_dir() else root
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.name.endswith((".csv", ".csv.gz", ".json.gz")) and path.is_file()
        )
    series: list[Series] = []
    read: dict[str, int] = {}
    for path in tqdm(paths, desc="read metrics", unit="file", disable=not progress):
        relative = path.relative_to(base)
        parts = relative.parts[1:] if relative.parts[0] == "metrics" else relative.parts
        family = parts[0] if len(parts) > 1 else "file"
        found = [_regular(one) for one in _read_file(path, str(relative), family, report)]
        found = [one for one in found if np.isfinite(one.values).sum() >= _SHORTEST]
        series += found
        read[str(relative)] = sum(len(one.values) for one in found)
    series = _joined(series)
    if not series:
        raise DataFileError(
            "no usable metric series",
            where=str(root),
            expected=f"CSV files timestamp,value with at least {_SHORTEST} numbers",
            got=f"{len(paths)} files; {report.describe()}",
            next_command="python -m training data check",
        )
    files = [
        DataFile(path=path, sha256=sha256_of(base / path), rows=rows, role="train")
        for path, rows in read.items()
        if rows
    ]
    return series, files


def _generated() -> tuple[list[Series], list[DataFile]]:
    series, files = [], []
    for kind in KINDS:
        made = [
            Series(
                name=f"{kind}-{seed}",
                family=f"generated {kind}",
                system=f"{kind}-{seed}",
                step_seconds=STEP_SECONDS,
                values=generate(kind, seed),
                path=f"generator:{kind}",
            )
            for seed in range(_SERIES_PER_GENERATED_KIND)
        ]
        digest = hashlib.sha256(b"".join(one.values.tobytes() for one in made)).hexdigest()
        rows = sum(len(one.values) for one in made)
        files.append(DataFile(path=f"generator:{kind}", sha256=digest, rows=rows, role="train"))
        series += made
    return series, files


def _read_file(path: Path, relative: str, family: str, report: RowReport) -> list[Series]:
    if path.name.endswith(".json.gz"):
        return _read_range_query(path, relative, family, report)
    if path.name.endswith(".csv.gz"):
        return _read_machine(path, relative, family, report)
    try:
        read = read_metrics_csv(path, report)
    except DataFileError:
        if report.strict:
            raise
        report.reject(path, 1, "not a metrics CSV")
        return []
    return [
        Series(
            name=f"{path.stem}/{channel}" if read.values.shape[1] > 1 else path.stem,
            family=family,
            system=read.system or path.stem,
            step_seconds=read.step_seconds,
            values=read.values[:, i],
            path=relative,
        )
        for i, channel in enumerate(read.channel_names)
        if channel.lower() not in ("label", "is_anomaly")
    ]


def _read_machine(path: Path, relative: str, family: str, report: RowReport) -> list[Series]:
    """``step,m00,m01…[,label]``: one series per column. Steps carry no time: by family."""
    try:
        frame = pd.read_csv(path, dtype="float32")
    except (ValueError, OSError, EOFError) as error:
        report.reject(path, 1, str(error))
        return []
    report.accept(len(frame))
    machine = path.name.removesuffix(".csv.gz")
    step = 60 if family == "smd" else COARSE_STEP_SECONDS
    return [
        Series(
            name=f"{machine}/{column}",
            family=family,
            system=machine.removesuffix("_train").removesuffix("_test"),
            step_seconds=step,
            values=frame[column].to_numpy(),
            path=relative,
        )
        for column in frame.columns
        if column not in ("step", "label")
    ]


def _read_range_query(path: Path, relative: str, family: str, report: RowReport) -> list[Series]:
    """Prometheus ``query_range`` result: a list of {metric, values: [[seconds, "number"], …]}."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            results = json.load(file)
        samples = [np.asarray(one["values"], dtype=np.float64) for one in results]
        names = [one["metric"] for one in results]
    except (ValueError, OSError, EOFError, KeyError, TypeError) as error:
        report.reject(path, 1, f"not a range query result: {error}")
        return []
    series = []
    for labels, sample in zip(names, samples, strict=True):
        if sample.ndim != 2 or len(sample) < 2:
            continue
        report.accept(len(sample))
        step = int(np.median(np.diff(sample[:, 0]))) or 60
        at = np.rint((sample[:, 0] - sample[0, 0]) / step).astype(np.int64)
        if at.min() < 0 or at.max() > 50 * len(at):
            report.reject(path, 1, "timestamps out of order")
            continue
        values = np.full(at.max() + 1, np.nan, dtype=np.float32)
        values[at] = sample[:, 1]
        name = f"{labels.get('__name__', path.stem)}/{len(series)}"
        series.append(Series(name, family, path.stem, step, values, relative))
    return series


def _regular(series: Series) -> Series:
    """Infinities become missing; steps finer than 5 minutes are averaged up to 5 minutes."""
    values = np.where(np.isfinite(series.values), series.values, np.nan).astype(np.float32)
    step, factor = series.step_seconds, 1
    if 0 < step < COARSE_STEP_SECONDS and COARSE_STEP_SECONDS % step == 0:
        factor, step = COARSE_STEP_SECONDS // step, COARSE_STEP_SECONDS
        values = averaged(values, factor)
    return Series(series.name, series.family, series.system, step, values, series.path)


def averaged(values: np.ndarray, factor: int) -> np.ndarray:
    """Means of ``factor`` steps, counted from the end; a group without a number stays NaN."""
    groups = len(values) // factor
    if groups == 0:
        return values[:0]
    block = values[len(values) - groups * factor :].reshape(groups, factor).astype(np.float64)
    there = np.isfinite(block)
    total = np.where(there, block, 0.0).sum(1)
    number = there.sum(1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def _joined(series: Iterable[Series]) -> list[Series]:
    """A machine's test file continues its train file."""
    kept: dict[tuple[str, str], Series] = {}
    tests: list[Series] = []
    for one in series:
        if one.path.endswith("_test.csv.gz"):
            tests.append(one)
        else:
            kept[one.path, one.name] = one
    for test in tests:
        key = (
            test.path.replace("_test.csv.gz", "_train.csv.gz"),
            test.name.replace("_test/", "_train/"),
        )
        train = kept.get(key)
        if train is None:
            kept[test.path, test.name] = test
            continue
        both = np.concatenate([train.values, test.values])
        name = train.name.replace("_train/", "/")
        kept[key] = Series(name, train.family, train.system, train.step_seconds, both, train.path)
    return list(kept.values())


def hold_out(series: Sequence[Series], names: Sequence[str]) -> tuple[list[Series], list[Series]]:
    """(kept, held out) by ``family/system``. Raises DataFileError for a name that is not there."""
    systems = {f"{one.family}/{one.system}" for one in series}
    for name in names:
        if name not in systems:
            raise DataFileError(
                "no such system to hold out",
                where="--hold-out",
                expected=f"one of {', '.join(sorted(systems)[:8])} …",
                got=name,
            )
    kept = [one for one in series if f"{one.family}/{one.system}" not in names]
    return kept, [one for one in series if f"{one.family}/{one.system}" in names]


def window_at(values: np.ndarray, origin: int, context_length: int) -> np.ndarray:
    """The last ``context_length`` steps before ``origin``, left-padded with NaN."""
    window = np.full(context_length, np.nan, dtype=np.float32)
    part = values[max(0, origin - context_length) : origin]
    if len(part):
        window[-len(part) :] = part
    return window


def horizon_at(values: np.ndarray, origin: int, horizon: int) -> np.ndarray:
    """The ``horizon`` steps from ``origin`` on, right-padded with NaN."""
    ahead = np.full(horizon, np.nan, dtype=np.float32)
    part = values[origin : origin + horizon]
    ahead[: len(part)] = part
    return ahead


class WindowSampler:
    """Random training windows; none of their values is from a series' validation part."""

    def __init__(self, series: Sequence[Series], context_length: int, horizon: int) -> None:
        self.context_length, self.horizon = context_length, horizon
        parts = [
            (one, one.values[: one.split])
            for one in series
            if one.split > 2 * one.lead_steps(horizon)
        ]
        parts = [(one, part) for one, part in parts if _varies(part)]
        if not parts:
            raise DataFileError(
                "no series to learn from",
                expected=f"one that varies and is longer than {2 * horizon} steps",
                got=f"{len(series)} series",
            )
        self.series = [one for one, _ in parts]
        self.parts = [part for _, part in parts]
        families = [one.family for one in self.series]
        weights = np.array([1 / np.sqrt(families.count(family)) for family in families])
        self.probabilities = weights / weights.sum()

    def draw(
        self, random: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """series (batch, context), target (batch, horizon), season_length (batch, 1)."""
        return self.draw_cells(random, batch)[1:]

    def draw_cells(
        self, random: np.random.Generator, batch: int
    ) -> tuple[list[tuple[Series, int]], np.ndarray, np.ndarray, np.ndarray]:
        """The same behind the series and origin of each row."""
        cells = []
        windows = np.empty((batch, self.context_length), dtype=np.float32)
        targets = np.empty((batch, self.horizon), dtype=np.float32)
        seasons = np.zeros((batch, 1), dtype=np.int64)
        for row, i in enumerate(random.choice(len(self.parts), batch, p=self.probabilities)):
            part, one = self.parts[i], self.series[i]
            latest = len(part) - one.lead_steps(self.horizon)
            # Full contexts mostly; the shorter ones of young series too.
            earliest = min(self.context_length, latest) if random.random() < 0.7 else 1
            origin = int(random.integers(earliest, latest + 1))
            cells.append((one, origin))
            windows[row] = window_at(part, origin, self.context_length)
            targets[row] = horizon_at(part, origin, self.horizon)
            seasons[row] = one.season_length if random.random() < 0.9 else 0
        return cells, *self._augment(random, windows, targets, seasons)

    def _augment(
        self,
        random: np.random.Generator,
        windows: np.ndarray,
        targets: np.ndarray,
        seasons: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        for row in range(len(windows)):
            if random.random() < 0.15:
                keep = int(self.context_length ** random.uniform(0.3, 1.0))
                windows[row, : self.context_length - keep] = np.nan
            if random.random() < 0.15:
                share = random.uniform(0, 0.3)
                windows[row, random.random(self.context_length) < share] = np.nan
            if random.random() < 0.1:
                start = int(random.integers(self.context_length))
                gap = 1 + int(self.context_length * random.uniform(0, 0.2))
                windows[row, start : start + gap] = np.nan
            if random.random() < 0.3:
                windows[row] *= -1
                targets[row] *= -1
        return windows, targets, seasons


def _varies(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return len(finite) >= _SHORTEST // 2 and bool(finite.max() > finite.min())
