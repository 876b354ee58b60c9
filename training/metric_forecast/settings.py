"""Architecture of one preset of the forecaster. Lengths in steps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from training.metric_forecast.analogs import Patch
from training.metric_forecast.experts import ExpertSettings
from training.metric_forecast.graph import DEFAULT_QUANTILES

_SHORT_CONTEXT = 168
# Below two days of 5-minute steps there is no season to learn, and speed is what is asked.
_DAY_CONTEXT = 576


@dataclass(frozen=True)
class ForecastSettings:
    context_length: int
    horizon: int
    experts: ExpertSettings
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    # Steps the LSTM reads at once; shorter segments cost time, longer ones detail.
    segment_length: int = 1
    hidden_size: int = 64
    patches: tuple[Patch, ...] = ()
    neighbours: int = 24
    # Up to here analogs may be as new as this many steps; beyond, a horizon old.
    near_steps: int = 12
    # Steps ahead at which earlier origins judge the experts; between them errors are interpolated.
    judged_steps: tuple[int, ...] = (1,)
    judged_origins: int = 84
    # False only to measure what the LSTM adds.
    has_lstm: bool = True
    # Decoders whose mean is the answer.
    members: int = 3
    # Steps ahead that are decoded, the rest lying on straight lines between them; none: all are.
    decoded_steps: tuple[int, ...] = ()
    # Series of the same machine that are read beside the forecast one; 0: the plain network.
    companions: int = 0

    def __post_init__(self) -> None:
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError(f"quantiles must rise and hold 0.5, got {self.quantiles}")
        if self.companions < 0:
            raise ValueError(f"companions cannot be fewer than none, got {self.companions}")

    @property
    def segments(self) -> int:
        """Context length in whole segments (the first may hold padding)."""
        return math.ceil(self.context_length / self.segment_length)

    @property
    def remembered(self) -> tuple[int, ...]:
        """Of the judged steps the nearest, the one halfway and the farthest: what the LSTM sees of
        the experts' errors. The rest lies between."""
        judged = len(self.judged_steps)
        return tuple(sorted({0, judged // 2, judged - 1}))

    @property
    def median_index(self) -> int:
        return self.quantiles.index(0.5)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ForecastSettings:
        """Raises KeyError, TypeError or ValueError for settings of another architecture."""
        values: dict[str, Any] = {name: _tuples(value) for name, value in stored.items()}
        values["experts"] = ExpertSettings(
            **{name: _tuples(value) for name, value in stored["experts"].items()}
        )
        values["patches"] = tuple(Patch(**patch) for patch in stored["patches"])
        return cls(**values)


def settings_for(
    context_length: int, horizon: int, quantiles: tuple[float, ...]
) -> ForecastSettings:
    """Sensible architecture for any lengths: ``next`` is (30, 1), ``fleet`` (288, 144), ``12h``
    (2016, 144).
    """
    if _SHORT_CONTEXT <= context_length < _DAY_CONTEXT:
        return _day_settings(context_length, horizon, quantiles)
    short = context_length < _SHORT_CONTEXT
    widths = (3, 12, 30) if short else (12, 288)
    medians = ((5, 1), (12, 1), (30, 1)) if short else ((12, 1), (72, 2), (288, 6))
    return ForecastSettings(
        context_length=context_length,
        horizon=horizon,
        quantiles=quantiles,
        segment_length=1 if short else max(1, round(context_length / 84)),
        experts=ExpertSettings(
            mean_steps=tuple(width for width in widths if width <= context_length),
            medians=tuple(median for median in medians if median[0] <= context_length),
            seasonal_days=1 if short else 7,
        ),
        patches=_SHORT_PATCHES if short else _LONG_PATCHES,
        neighbours=6 if short else 24,
        near_steps=1 if short else 12,
        judged_steps=_spread(horizon),
        judged_origins=min(84, max(4, 2 * context_length // 3)),
    )


def _day_settings(
    context_length: int, horizon: int, quantiles: tuple[float, ...]
) -> ForecastSettings:
    """A tenth of the arithmetic of a week's: for a hundred thousand series a minute."""
    judged = tuple(step for step in _spread(horizon) if step in (1, 12, 48, horizon))
    return ForecastSettings(
        context_length=context_length,
        horizon=horizon,
        quantiles=quantiles,
        segment_length=12,
        experts=ExpertSettings(
            mean_steps=(12, context_length), medians=((12, 2), (72, 6)), seasonal_days=1
        ),
        patches=_DAY_PATCHES,
        neighbours=12,
        near_steps=12,
        judged_steps=judged,
        judged_origins=12,
        members=1,
        decoded_steps=_spread(horizon),
    )


_DAY_PATCHES = (
    Patch(24, stride=2, decay=0.9, age_penalty=0.3),
    Patch(36, stride=6, decay=0.97, level_share=0.0, age_penalty=0.3),
)
_SHORT_PATCHES = (
    Patch(3, decay=0.85),
    Patch(6, decay=0.85, level_share=0.9),
)
_LONG_PATCHES = (
    # The shape of the last two hours, and of the last eight.
    Patch(24, decay=0.85, age_penalty=0.3),
    Patch(96, stride=4, decay=0.95, age_penalty=0.3, phase_penalty=0.5),
    # Four hours with a trace of their level.
    Patch(48, stride=2, decay=0.93, level_share=0.9, age_penalty=0.2, phase_penalty=1.0),
    # Days that stood where this one stands, at this time of day.
    Patch(36, stride=3, level_share=0.0, phase_penalty=40.0),
)


def _spread(horizon: int) -> tuple[int, ...]:
    """1 … horizon in at most 8 steps, each about twice the one before."""
    steps = {1, horizon}
    steps |= {step for step in (3, 6, 12, 24, 48, 96) if step < horizon}
    return tuple(sorted(steps))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
