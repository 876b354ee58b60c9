"""Synthetic metrics for when there is no data: the shapes that operators' dashboards show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP_SECONDS = 300
_DAY = 86400 // STEP_SECONDS
_SHAPE = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def daily_load(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Requests or CPU: a working-day bump, quieter weekends, noise that grows with the load."""
    hour = (steps + random.integers(_DAY)) % _DAY / _DAY * 24
    width, peak = random.uniform(2, 5), random.uniform(9, 17)
    bump = np.exp(-0.5 * ((hour - peak) / width) ** 2)
    bump += random.uniform(0, 0.6) * np.exp(-0.5 * ((hour - (peak + 7) % 24) / 1.5) ** 2)
    weekend = np.where(steps // _DAY % 7 >= 5, random.uniform(0.4, 1.0), 1.0)
    load = random.uniform(0.05, 0.5) + bump * weekend
    return load * (1 + random.uniform(0.01, 0.1) * random.standard_normal(len(steps)))


def trend(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Slow growth with a small daily wave."""
    slope = random.uniform(-1, 2) / len(steps)
    wave = random.uniform(0.01, 0.1) * np.sin(2 * np.pi * steps / _DAY + random.uniform(0, 6))
    return 1 + slope * steps + wave + random.uniform(0.003, 0.03) * autocorrelated(random, steps)


def autocorrelated(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Mean-reverting noise; correlation time from minutes to hours."""
    keep = 1 - 1 / random.uniform(2, 100)
    noise = random.standard_normal(len(steps)) * np.sqrt(1 - keep**2)
    level = np.empty(len(steps))
    current = 0.0
    for i, shock in enumerate(noise):
        current = keep * current + shock
        level[i] = current
    return level


def level_steps(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Deployments and jobs: the level jumps at random times and stays."""
    count = int(random.integers(3, 30))
    edges = np.sort(random.choice(steps, count, replace=False))
    levels = random.lognormal(0, 0.8, count + 1)
    return levels[np.searchsorted(edges, steps)] + 0.03 * random.standard_normal(len(steps))


def sawtooth_disk(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Disk usage: fills, then is cleaned down by a daily or irregular job."""
    period = int(random.choice([_DAY, _DAY // 2, random.integers(_DAY // 3, 3 * _DAY)]))
    rate = random.uniform(0.5, 1.5, len(steps)) * random.uniform(0.1, 0.5) / period
    filled = np.cumsum(rate)
    start = (steps + random.integers(period)) // period
    first = np.searchsorted(start, start)
    return random.uniform(0.2, 0.5) + filled - filled[first] * random.uniform(0.8, 1.0)


def batch_jobs(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """A square wave: a nightly or hourly job on an idle machine."""
    period = int(random.choice([12, 72, _DAY]))
    duty = random.uniform(0.1, 0.6)
    running = (steps + random.integers(period)) % period < duty * period
    return 0.05 + running * 0.8 + 0.02 * random.standard_normal(len(steps))


def bursts(random: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Errors per minute: nearly always zero, sometimes a decaying burst."""
    starts = random.random(len(steps)) < random.uniform(0.002, 0.02)
    level = np.empty(len(steps))
    current = 0.0
    for i, size in enumerate(starts * random.lognormal(1, 1, len(steps))):
        current = 0.8 * current + size
        level[i] = current
    return np.round(level, 2)


KINDS: dict[str, _SHAPE] = {
    "daily_load": daily_load,
    "trend": trend,
    "noise": autocorrelated,
    "level_steps": level_steps,
    "sawtooth_disk": sawtooth_disk,
    "batch_jobs": batch_jobs,
    "bursts": bursts,
}


def generate(kind: str, seed: int, days: int = 28) -> np.ndarray:
    """One series of a kind, float32 (steps,), 5-minute steps; a third of them with gaps (NaN).

    The unit is random, from ratios (1e-3) to bytes (1e12), as in production.
    """
    random = np.random.default_rng([list(KINDS).index(kind), seed])
    values = KINDS[kind](random, np.arange(days * _DAY)) * 10.0 ** random.uniform(-3, 12)
    if random.random() < 1 / 3:
        for _ in range(int(random.integers(1, 6))):
            start = int(random.integers(len(values)))
            values[start : start + int(random.integers(1, _DAY // 2))] = np.nan
        values[random.random(len(values)) < random.choice([0.0, 0.02])] = np.nan
    return values.astype(np.float32)
