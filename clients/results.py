"""What the clients answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Forecast:
    """Forecasts of several series, in each metric's own unit.

    median: float32 (series, horizon)
    quantiles: {q: float32 (series, horizon)}
    source: which expert answered each series (lstm, seasonal, last)
    step_seconds: distance of the horizon's steps (finer series are averaged before the 12 h model)
    errors: {index of a series: why it was skipped}; its rows are NaN
    """

    median: Array
    quantiles: dict[float, Array]
    source: list[str]
    step_seconds: float
    model: str
    model_version: str
    errors: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogVerdict:
    """``score`` is the probability of an anomaly; ``label`` is None for a skipped line.

    ``model_version`` is the version that answered.
    """

    label: Literal["normal", "anomaly"] | None
    score: float
    threshold: float
    error: str | None = None
    model_version: str = ""


@dataclass(frozen=True)
class EvidenceLine:
    """A line of the log as it was sent; ``line_number`` counts from 1."""

    line_number: int
    text: str


@dataclass(frozen=True)
class Cause:
    """One root or secondary cause. ``action`` says what to do, by language ("zh", "en")."""

    label: str
    probability: float
    evidence: tuple[EvidenceLine, ...]
    action: dict[str, str]


@dataclass(frozen=True)
class Diagnosis:
    """``causes`` are ranked, the root first. ``unknown``: it failed, and no known cause fits."""

    causes: list[Cause]
    root: str | None
    unknown: bool
    probabilities: dict[str, float]
    model_version: str
    error: str | None = None
