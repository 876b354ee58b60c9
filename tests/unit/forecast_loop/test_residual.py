"""The running scale of errors: against a plain loop, through restarts and damaged files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from services.forecast_loop.grid import Grid
from services.forecast_loop.residual import (
    GAUSSIAN_ROOT,
    MEMORY,
    MIN_ERRORS,
    Residual,
    load_state,
    save_state,
)
from services.forecast_loop.series_store import Oddities, SeriesStore

STEP, HOUR = 300, 3600


def make(sigma_floor: float = 0.0) -> tuple[SeriesStore, Residual]:
    store = SeriesStore(("name",), columns=24, step_seconds=STEP, max_series=3, fresh_columns=24)
    residual = Residual(max_series=3, horizon_seconds=HOUR, sigma_floor=sigma_floor)
    return store, residual


def cycle(
    store: SeriesStore,
    residual: Residual,
    end: int,
    values: dict[str, float],
    forecasts: dict[str, float],
) -> int:
    store.advance(end * STEP)
    store.begin()
    grid = Grid(end * STEP, STEP, 1)
    points = np.array([[value] for value in values.values()], dtype=np.float32)
    store.merge([{"name": name} for name in values], grid, points, Oddities())
    residual.follow(store)
    compared = residual.judge(store)
    rows = [row for name in forecasts if (row := store.row((name,))) is not None]
    residual.expect(
        np.array(rows, dtype=np.int64),
        np.array(list(forecasts.values()), dtype=np.float32),
        end * STEP,
    )
    return compared


def test_it_is_what_a_plain_loop_computes() -> None:
    random = np.random.default_rng(0)
    values, forecasts = random.normal(0, 1, (2, 300)).astype(np.float32)
    store, residual = make()
    mean_root, count = 0.0, 0
    for end in range(300):
        compared = cycle(store, residual, end, {"a": values[end]}, {"a": forecasts[end]})
        assert compared == (1 if end >= 12 else 0)
        if end >= 12:
            count += 1
            weight = max(1 / count, 1 / MEMORY)
            error = abs(float(values[end]) - float(forecasts[end - 12]))
            mean_root = (1 - weight) * mean_root + weight * math.sqrt(error)
        sigma = residual.sigma()[0]
        if count < MIN_ERRORS:
            assert math.isnan(sigma)
        else:
            assert sigma == pytest.approx((mean_root / GAUSSIAN_ROOT) ** 2, rel=1e-6)


def test_gaussian_errors_give_their_deviation_and_an_incident_little() -> None:
    random = np.random.default_rng(1)
    residual = Residual(max_series=1_000, horizon_seconds=HOUR)
    for _ in range(400):
        residual._enter(np.abs(random.normal(0, 0.02, 1_000)))
    before = float(np.median(residual.sigma()))
    assert before == pytest.approx(0.02, rel=0.02)
    residual._enter(np.full(1_000, 100 * 0.02))
    assert float(np.median(residual.sigma())) < 1.35 * before


def test_a_constant_series_that_begins_to_live_is_not_stuck_at_zero() -> None:
    residual = Residual(max_series=1, horizon_seconds=HOUR)
    for _ in range(500):
        residual._enter(np.zeros(1))
    assert residual.sigma()[0] == 0.0
    random = np.random.default_rng(2)
    for _ in range(MEMORY * 3):
        residual._enter(np.abs(random.normal(0, 1, 1)))
    assert residual.sigma()[0] == pytest.approx(1.0, rel=0.3)


def test_the_floor_and_missing_values() -> None:
    store, residual = make(sigma_floor=0.01)
    for end in range(40):
        value = math.nan if end % 2 else 1.0
        cycle(store, residual, end, {"a": value}, {"a": 1.0})
    assert residual.sigma()[0] == np.float32(0.01)


def test_a_missed_cycle_is_judged_when_its_points_come() -> None:
    store, residual = make()
    cycle(store, residual, 0, {"a": 1.0}, {"a": 3.0})
    # Nobody forecast or read for an hour and more; then the whole hour is read.
    store.advance(14 * STEP)
    store.begin()
    points = np.full((1, 14), 2.0, dtype=np.float32)
    store.merge([{"name": "a"}], Grid(STEP, STEP, 14), points, Oddities())
    residual.follow(store)
    assert residual.judge(store) == 1
    # Too late: the moment has left the window.
    residual.expect(np.array([0]), np.array([1.0], dtype=np.float32), 14 * STEP)
    store.advance(100 * STEP)
    assert residual.judge(store) == 0


def test_a_row_that_changes_its_series_starts_anew() -> None:
    store, residual = make()
    for end in range(30):
        cycle(store, residual, end, {"a": 1.0 + end % 2}, {"a": 1.0})
    assert np.isfinite(residual.sigma()[0])
    for end in range(60, 75):
        cycle(store, residual, end, {"b": 1.0}, {"b": 1.0})
    assert store.row(("b",)) == 0
    assert math.isnan(residual.sigma()[0])


def filled() -> tuple[SeriesStore, Residual]:
    store, residual = make()
    random = np.random.default_rng(3)
    for end in range(60):
        pair = random.normal(0, 1, 2)
        values = {"a": pair[0], "b\u00e9": 10 * pair[1]}
        cycle(store, residual, end, values, {"a": 0.0, "b\u00e9": 0.0})
    return store, residual


def test_it_survives_a_restart_with_other_rows(tmp_path: Path) -> None:
    _, residual = filled()
    before = residual.sigma()
    path = tmp_path / "folder" / "state.npz"
    save_state(path, {"m": residual})
    store, again = make()
    assert load_state(path, {"m": again}) == []
    # Told to stop before anything was read: what was saved is saved again, not lost.
    save_state(path, {"m": again})
    store, again = make()
    assert load_state(path, {"m": again}) == []
    compared = cycle(store, again, 60, {"new": 0.0}, {})
    compared += cycle(store, again, 61, {"b\u00e9": 0.0, "a": 0.0}, {})
    for name, old_row in {"a": 0, "b\u00e9": 1}.items():
        row = store.row((name,))
        assert row is not None
        assert row != old_row
        assert again.sigma()[row] == pytest.approx(before[old_row], rel=0.1)
    new = store.row(("new",))
    assert new is not None
    assert math.isnan(again.sigma()[new])
    assert compared == 2  # forecasts that waited were saved too
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("damage", ["half", "text", "older", "shapes", "folder"])
def test_a_damaged_file_is_named_and_starts_anew(tmp_path: Path, damage: str) -> None:
    _, residual = filled()
    path = tmp_path / "state.npz"
    save_state(path, {"m": residual})
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("sigma = 1")
    elif damage == "older":
        np.savez(path, format=np.array(0))
    elif damage == "shapes":
        arrays = {f"m/{name}": array for name, array in residual.state().items()}
        np.savez(path, **{**arrays, "format": np.array(1), "m/count": np.zeros(1)})
    else:
        path.unlink()
        path.mkdir()
    _, again = make()
    [problem] = load_state(path, {"m": again})
    assert "start anew" in str(problem)
    assert str(path) in str(problem)
    assert again.state()["keys"].tobytes() == b"[]"


def test_no_file_is_no_problem(tmp_path: Path) -> None:
    _, residual = make()
    assert load_state(tmp_path / "none.npz", {"m": residual}) == []
