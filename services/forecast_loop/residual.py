"""``Residual``: how far each series usually is from what was forecast for it an hour before.

A forecast for the moment t waits until the store holds t; the error |value - forecast| then enters
a running mean of *square roots*, whose square, scaled, is sigma:

    m  <- m + a (sqrt(|e|) - m),   sigma = (m / 0.8222)^2

0.8222 is the mean of sqrt(|z|) of a standard normal z, so Gaussian errors give their standard
deviation. The root makes it robust: an incident of 100 sigma, which would double a running mean of
|e| (a = 1/72), lifts sigma by a quarter. Unlike a mean of clipped errors it cannot stick at zero
when a constant series begins to live.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from clients.results import Array
from contract.errors import ConfigError
from services.forecast_loop.series_store import Key, SeriesStore

GAUSSIAN_ROOT = 0.82217895
"""E sqrt(|z|) = 2^(1/4) Gamma(3/4) / sqrt(pi)."""
MEMORY = 72
"""Errors after which an old one weighs 1/e: six hours of five-minute cycles."""
MIN_ERRORS = 12
"""Fewer errors than this make no scale: an alert on it would be noise."""
STATE_FORMAT = 1


class Residual:
    """One query's scales. Rows follow the store's; a row that changes its series starts anew.

    sigma_floor: what sigma never falls below, the metric's own unit
    """

    def __init__(self, *, max_series: int, horizon_seconds: int, sigma_floor: float = 0.0) -> None:
        self.horizon_seconds = horizon_seconds
        self.sigma_floor = sigma_floor
        self._keys: list[Key | None] = []
        self._births: Array = np.zeros(max_series, dtype=np.int64)
        self._mean_root: Array = np.zeros(max_series)
        self._count: Array = np.zeros(max_series, dtype=np.int64)
        self._waiting: dict[int, Array] = {}  # moment spoken of -> float32 (max_series,)
        self._saved: dict[str, Array] | None = None
        self._saved_rows: dict[Key, int] = {}

    def follow(self, store: SeriesStore) -> None:
        """Take over the store's rows: new series start anew, or from the state that was read."""
        self._keys = store.keys
        for row in np.flatnonzero(store.births != self._births):
            self._start(int(row), self._keys[row])
        self._births[:] = store.births

    def _start(self, row: int, key: Key | None) -> None:
        self._mean_root[row] = 0.0
        self._count[row] = 0
        for forecast in self._waiting.values():
            forecast[row] = np.nan
        saved_row = None if key is None else self._saved_rows.pop(key, None)
        if saved_row is None or self._saved is None:
            return
        self._mean_root[row] = self._saved["mean_root"][saved_row]
        self._count[row] = self._saved["count"][saved_row]
        for moment, forecasts in zip(self._saved["moments"], self._saved["waiting"], strict=True):
            self._wait(int(moment))[row] = forecasts[saved_row]

    def _wait(self, moment_seconds: int) -> Array:
        """float32 (max_series,): the forecasts that speak of a moment."""
        if moment_seconds not in self._waiting:
            self._waiting[moment_seconds] = np.full(len(self._count), np.nan, dtype=np.float32)
        return self._waiting[moment_seconds]

    def expect(self, rows: Array, median: Array, made_seconds: int) -> None:
        """Keep forecasts (float32 (rows,)) until the moment they speak of has come."""
        self._wait(made_seconds + self.horizon_seconds)[rows] = median

    def judge(self, store: SeriesStore, steps: int = 1) -> int:
        """Compare what came with what was forecast for it; returns how many were compared.

        ``steps``: columns that the model's step spans, whose mean it forecasts. Forecasts whose
        moment has left the window, or came without a value, are dropped.
        """
        assert store.end_seconds is not None
        compared = 0
        for moment in sorted(m for m in self._waiting if m <= store.end_seconds):
            forecast = self._waiting.pop(moment)
            came = store.at(moment, steps)
            if came is not None:
                error: Array = np.full(len(forecast), np.nan)
                error[: len(came)] = np.abs(came.astype(np.float64) - forecast[: len(came)])
                compared += self._enter(error)
        return compared

    def _enter(self, error: Array) -> int:
        good = np.isfinite(error)
        self._count[good] += 1
        # A plain mean at first, which forgets nothing: the first errors must not weigh for ever.
        weight = np.maximum(1.0 / np.maximum(self._count, 1), 1.0 / MEMORY)
        step = weight * (np.sqrt(np.where(good, error, 0.0)) - self._mean_root)
        self._mean_root += np.where(good, step, 0.0)
        return int(good.sum())

    def sigma(self) -> Array:
        """float32 (max_series,), the metric's own unit; NaN until MIN_ERRORS were seen."""
        sigma = np.maximum((self._mean_root / GAUSSIAN_ROOT) ** 2, self.sigma_floor)
        scaled: Array = np.where(self._count >= MIN_ERRORS, sigma, np.nan).astype(np.float32)
        return scaled

    def state(self) -> dict[str, Array]:
        """What ``restore`` takes, as plain arrays."""
        if not self._keys and self._saved is not None:
            # Nothing was read since the start: what is not known yet must not overwrite what was.
            return self._saved
        taken = [row for row, key in enumerate(self._keys) if key is not None]
        names = json.dumps([self._keys[row] for row in taken]).encode()
        moments = sorted(self._waiting)
        waiting = [self._waiting[moment][taken] for moment in moments]
        return {
            "keys": np.frombuffer(names, dtype=np.uint8),
            "mean_root": self._mean_root[taken],
            "count": self._count[taken],
            "moments": np.array(moments, dtype=np.int64),
            "waiting": np.array(waiting, dtype=np.float32).reshape(len(moments), len(taken)),
        }

    def restore(self, state: dict[str, Array]) -> None:
        """Start from a saved state, before the first ``follow``. Raises ValueError, KeyError."""
        keys = [tuple(map(str, key)) for key in json.loads(state["keys"].tobytes())]
        if not (len(keys) == len(state["mean_root"]) == len(state["count"])):
            raise ValueError("arrays of different lengths")
        if state["waiting"].shape != (len(state["moments"]), len(keys)):
            raise ValueError("forecasts of another shape")
        self._saved = state
        self._saved_rows = {key: row for row, key in enumerate(keys)}


def save_state(path: Path, residuals: dict[str, Residual]) -> None:
    """Write all queries' scales, by one rename. Raises OSError."""
    arrays: dict[str, Array] = {"format": np.array(STATE_FORMAT)}
    for metric, residual in residuals.items():
        for name, array in residual.state().items():
            arrays[f"{metric}/{name}"] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, residuals: dict[str, Residual]) -> list[ConfigError]:
    """Restore what the file holds. What cannot be used is named, and starts anew."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [_unusable(path, error.strerror or str(error))]
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if int(arrays.get("format", 0)) != STATE_FORMAT:
            return [_unusable(path, f"format {arrays.get('format', 'unknown')}")]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        return [_unusable(path, str(error) or repr(error))]
    problems = []
    for metric, residual in residuals.items():
        names = {"keys", "mean_root", "count", "moments", "waiting"}
        state = {name: arrays[f"{metric}/{name}"] for name in names if f"{metric}/{name}" in arrays}
        if not state:
            continue
        try:
            residual.restore(state)
        except (ValueError, KeyError, TypeError) as error:
            problems.append(_unusable(path, f"{metric}: {error}"))
    return problems


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        "the saved residual scales cannot be used; they start anew",
        where=str(path),
        expected=f"a file of format {STATE_FORMAT}",
        got=why,
    )
