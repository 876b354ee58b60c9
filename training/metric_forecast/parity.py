"""What the export gate asks of a forecaster: rows of windows, decisions, and what never may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contract.errors import InputError
from contract.manifest import Manifest
from training.metric_forecast.graph import COMPANIONS
from training.spec import Arrays, Decisions, Padding, Parity

if TYPE_CHECKING:
    from training.artifact import Artifact

# What counts as above: so much of the window's spread, and so many of float32's last digits.
_ABOVE_SHARE, _ABOVE_DIGITS = 1e-5, 5e-7
_MISSING_SHARE: dict[Padding, float] = {"none": 0.0, "half": 0.5, "most": 0.9}


def parity_inputs(artifact: Artifact, batch: int, length: int, padding: Padding) -> Arrays:
    """Golden rows cut to their newest ``length`` steps, of which a share is then missing too.

    The newest finite point stays: a window without one has no forecast to compare.
    """
    golden = artifact.golden()
    context_length = golden["series"].shape[1]
    if not 1 <= length <= context_length:
        raise InputError(
            "parity length out of range", expected=f"1 … {context_length}", got=str(length)
        )
    random = np.random.default_rng([batch, length, len(padding)])
    rows = np.arange(batch) % len(golden["series"])
    series = np.full((batch, context_length), np.nan, dtype=np.float32)
    inputs = {"series": series, "season_length": golden["season_length"][rows]}
    others = golden.get(COMPANIONS)
    if others is not None:
        inputs[COMPANIONS] = np.full((batch, *others.shape[1:]), np.nan, dtype=np.float32)
    for i, row in enumerate(golden["series"][rows]):
        finite = np.flatnonzero(np.isfinite(row))
        end = finite[-1] + 1
        # Shift the newest point to the window's end, so that even one step is a real one.
        kept = row[max(0, end - length) : end].copy()
        kept[:-1][random.random(len(kept) - 1) < _MISSING_SHARE[padding]] = np.nan
        series[i, context_length - len(kept) :] = kept
        if others is not None:
            beside = others[rows[i], :, end - len(kept) : end]
            inputs[COMPANIONS][i, :, context_length - len(kept) :] = beside
    return inputs


def decide(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> Decisions:
    """Two decisions a row: which expert speaks, and whether the median ends above the window's
    95th percentile (what an alert asks) by more than rounding: on a plateau the forecast *is* the
    threshold, and the last bit of either would be the decision.

    The margin of the alert is its distance in units of the window's spread. The margin of the
    expert is 0, "not known": it is the gap of two back-test errors, which stay inside the graph.
    """
    quantiles = [float(q) for q in manifest.graph.parameters["quantiles"].split(",")]
    series = inputs["series"].astype(np.float64)
    median = outputs["forecast"][:, -1, quantiles.index(0.5)].astype(np.float64)
    known = np.isfinite(series).any(axis=1)
    safe = np.where(known[:, None], series, 0.0)
    threshold = np.nanquantile(safe, 0.95, axis=1)
    spread = np.nanmax(safe, axis=1) - np.nanmin(safe, axis=1)
    above = threshold + _ABOVE_SHARE * spread + _ABOVE_DIGITS * np.abs(threshold)
    distance = np.abs(median - above)
    margin = np.where(spread > 0, distance / np.where(spread > 0, spread, 1.0), distance)
    source = outputs["source"].reshape(-1).astype(np.int64)
    return Decisions(
        values=np.stack([source, (median > above).astype(np.int64)], axis=1),
        margins=np.stack([np.zeros_like(margin), np.nan_to_num(margin)], axis=1),
    )


def edges(artifact: Artifact) -> dict[str, Arrays]:
    """Golden windows made constant, gapped, short, empty, huge, tiny: three rows of each."""
    golden = artifact.golden()
    first, season_length = golden["series"][:3].copy(), golden["season_length"][:3]
    steps = first.shape[1]
    random = np.random.default_rng(3)
    level = np.nanmean(first, axis=1, keepdims=True)
    constant = np.repeat(level, steps, axis=1)
    one_gap, gaps, one_point = first.copy(), first.copy(), np.full_like(first, np.nan)
    one_gap[:, steps // 2] = np.nan
    gaps[:, :-1][random.random((len(first), steps - 1)) < 0.7] = np.nan
    one_point[:, -1:] = level
    constant_gaps = np.where(np.isfinite(gaps), constant, np.nan)
    constant_gaps[:, -1:] = level
    nothing = first.copy()
    # A row without a point has no forecast; it must not harm its neighbours either.
    nothing[1] = np.nan
    windows = {
        "one missing": one_gap,
        "many missing": gaps,
        "constant": constant,
        "constant with gaps": constant_gaps,
        "zeros": np.zeros_like(first),
        "one point": one_point,
        "a neighbour without a point": nothing,
        "huge": first * np.float32(1e12),
        "tiny": first * np.float32(1e-12),
        "no season": first,
    }
    found = {
        name: {
            "series": series.astype(np.float32),
            "season_length": np.zeros_like(season_length) if name == "no season" else season_length,
        }
        for name, series in windows.items()
    }
    if COMPANIONS in golden:
        found |= _edges_beside(found, golden[COMPANIONS][:3])
    return found


def _edges_beside(found: dict[str, Arrays], first: np.ndarray) -> dict[str, Arrays]:
    """The same beside golden companions, and golden windows beside hard ones."""
    plain = found["huge"] | {"series": found["no season"]["series"]}
    itself = np.repeat(plain["series"][:, None], first.shape[1], axis=1)
    hard = {
        "no companions": np.full_like(first, np.nan),
        "constant companions": np.full_like(first, 5.0),
        "huge companions": first * np.float32(1e12),
        "the series itself beside it": itself,
    }
    with_them = {name: rows | {COMPANIONS: first} for name, rows in found.items()}
    return with_them | {name: plain | {COMPANIONS: others} for name, others in hard.items()}


def faults(manifest: Manifest, inputs: Arrays, outputs: Arrays) -> list[str]:
    """Quantiles rise, and a window with a point has a finite forecast."""
    forecast = outputs["forecast"].astype(np.float64)
    found = []
    falling = (np.diff(forecast, axis=-1) < 0).any(axis=(1, 2))
    if falling.any():
        found.append(f"quantiles cross in {int(falling.sum())} rows")
    known = np.isfinite(inputs["series"]).any(axis=1)
    broken = known & ~np.isfinite(forecast).all(axis=(1, 2))
    if broken.any():
        found.append(f"forecast is NaN or infinite in {int(broken.sum())} rows")
    return found


def describe(artifact: Artifact, inputs: Arrays, row: int) -> str:
    """``last 3.2, mean 3.0, spread 0.4, 12% missing, season 288``"""
    series = inputs["series"][row].astype(np.float64)
    season = int(inputs["season_length"][row].ravel()[0])
    finite = series[np.isfinite(series)]
    if len(finite) == 0:
        return f"no point at all, season {season}"
    words = (
        f"last {finite[-1]:.6g}, mean {finite.mean():.6g}, spread {finite.std():.3g},"
        f" {1 - len(finite) / len(series):.0%} missing, season {season}"
    )
    if COMPANIONS in inputs:
        known = int(np.isfinite(inputs[COMPANIONS][row]).any(axis=-1).sum())
        words += f", {known} companions"
    return words


PARITY = Parity(inputs=parity_inputs, edges=edges, decide=decide, faults=faults, describe=describe)
