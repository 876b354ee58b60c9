"""How much is asked and when: stages of a run, and the moments at which requests are due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contract.errors import InputError

Process = Literal["poisson", "constant"]
SHAPES = ("constant", "step", "ramp", "spike", "soak", "fleet")
DEFAULT_SECONDS = {
    "constant": 60.0,
    "step": 180.0,
    "ramp": 600.0,
    "spike": 120.0,
    "soak": 600.0,
    "fleet": 60.0,
}
STEP_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25)
SPIKE_FACTOR = 4.0
SOAK_WINDOWS = 10
RAMP_FIRST_FACTOR, RAMP_RATIO = 0.5, 1.3
_RAMP_STAGE_SECONDS = 8.0
# Fewer requests than this in a stage say nothing about its slowest ones.
_RAMP_STAGE_REQUESTS = 40
_FLEET_MARGIN = 0.92


@dataclass(frozen=True)
class Stage:
    """``factor``: times each flow's own rate. ``judged``: the objectives must hold in it."""

    name: str
    seconds: float
    factor: float
    judged: bool = True


def stages_of(shape: str, seconds: float, slowest_rate: float = 1.0) -> tuple[Stage, ...]:
    """The stages of a shape, ``seconds`` in all.

    slowest_rate: requests a second of the slowest flow, which a ramp's stages must be long for
    Raises InputError.
    """
    if seconds <= 0:
        raise InputError(
            "a run takes time", where="--seconds", expected="above 0", got=f"{seconds:g}"
        )
    if shape == "constant":
        return (Stage("steady", seconds, 1.0),)
    if shape == "step":
        each = seconds / len(STEP_FACTORS)
        return tuple(
            Stage(f"× {factor:g}", each, factor, judged=factor == 1.0) for factor in STEP_FACTORS
        )
    if shape == "ramp":
        return _ramp(seconds, slowest_rate)
    if shape == "spike":
        return (
            Stage("before", 0.4 * seconds, 1.0),
            Stage("spike", 0.15 * seconds, SPIKE_FACTOR, judged=False),
            Stage("recovery", 0.15 * seconds, 1.0, judged=False),
            Stage("after", 0.3 * seconds, 1.0),
        )
    if shape == "soak":
        each = seconds / SOAK_WINDOWS
        return tuple(Stage(f"{i + 1}/{SOAK_WINDOWS}", each, 1.0) for i in range(SOAK_WINDOWS))
    if shape == "fleet":
        # The minute's work is sent a little faster than it comes, so that the last of it can be
        # answered within the minute.
        sent = _FLEET_MARGIN * seconds
        return (
            Stage("arriving", sent, 1 / _FLEET_MARGIN),
            Stage("rest of the minute", seconds - sent, 0.0, judged=False),
        )
    raise InputError("unknown shape", where="--shape", expected=", ".join(SHAPES), got=repr(shape))


def _ramp(seconds: float, slowest_rate: float) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    factor, left = RAMP_FIRST_FACTOR, seconds
    while left > 0:
        wanted = max(_RAMP_STAGE_SECONDS, _RAMP_STAGE_REQUESTS / (slowest_rate * factor))
        length = min(wanted, left)
        stages.append(Stage(f"× {factor:.2f}", length, factor, judged=False))
        left -= length
        factor *= RAMP_RATIO
    return tuple(stages)


def arrivals(
    stages: Sequence[Stage],
    rate_per_second: float,
    process: Process,
    generator: np.random.Generator,
) -> np.ndarray:
    """Seconds from the run's begin at which requests are due, float64 (requests,), sorted.

    Chosen before the run, so that no answer's lateness can put off the next request.
    """
    edges = np.concatenate([[0.0], np.cumsum([stage.seconds for stage in stages])])
    rates = np.array([stage.factor * rate_per_second for stage in stages])
    expected = np.concatenate([[0.0], np.cumsum(np.diff(edges) * rates)])
    total = float(expected[-1])
    if process == "constant":
        # A phase of its own, or all flows would ask in the same moment.
        due = np.arange(generator.random(), total, 1.0)
    else:
        due = np.empty(0)
        while not len(due) or due[-1] < total:
            gaps = generator.exponential(size=int(total - (due[-1] if len(due) else 0)) + 64)
            due = np.concatenate([due, (due[-1] if len(due) else 0.0) + np.cumsum(gaps)])
        due = due[due < total]
    # side="right": a stage in which nothing is due is passed over.
    stage = np.minimum(np.searchsorted(expected, due, side="right") - 1, len(rates) - 1)
    moments: np.ndarray = edges[stage] + (due - expected[stage]) / np.maximum(rates[stage], 1e-12)
    return moments


def stage_index(stages: Sequence[Stage], seconds: np.ndarray) -> np.ndarray:
    """Which stage each moment lies in; the last one also holds what is later."""
    ends = np.cumsum([stage.seconds for stage in stages])
    return np.minimum(np.searchsorted(ends, seconds, side="right"), len(stages) - 1)
