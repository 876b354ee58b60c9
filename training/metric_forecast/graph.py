"""The served contract of a forecaster: tensors, sizes, tolerances. No torch here."""

from __future__ import annotations

from typing import Protocol

from contract.errors import InputError
from contract.manifest import Graph, Tensor, Tolerance

# Preset → (context length, horizon) in steps.
PRESETS: dict[str, tuple[int, int]] = {"next": (30, 1), "12h": (2016, 144), "fleet": (288, 144)}
DEFAULT_QUANTILES = (0.1, 0.5, 0.9)
SOURCES = ("last", "level", "seasonal", "analogs", "lstm")
COMPANIONS = "companions"


class Sizes(Protocol):
    @property
    def context_length(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    @property
    def quantiles(self) -> tuple[float, ...]: ...
    @property
    def companions(self) -> int: ...


def sources_of(companions: int) -> tuple[str, ...]:
    """What ``source`` counts in."""
    return (*SOURCES, COMPANIONS) if companions else SOURCES


def preset_graph(preset: str) -> Graph:
    """The graph of ``next`` or ``12h``. Raises InputError: a custom run carries its own."""
    if preset not in PRESETS:
        raise InputError(
            f"metric_forecast: no preset {preset!r}", expected=f"one of {', '.join(PRESETS)}"
        )
    return make_graph(preset, *PRESETS[preset], DEFAULT_QUANTILES)


def graph_of(name: str, settings: Sizes) -> Graph:
    """The graph of any run from its settings."""
    return make_graph(
        name, settings.context_length, settings.horizon, settings.quantiles, settings.companions
    )


def make_graph(
    name: str,
    context_length: int,
    horizon: int,
    quantiles: tuple[float, ...],
    companions: int = 0,
) -> Graph:
    beside = Tensor(
        name=COMPANIONS,
        dtype="FP32",
        dims=(companions, context_length),
        unit="each one's own, NaN = missing",
    )
    max_batch_size = 256 if context_length < 576 else 64
    return Graph(
        triton_name=f"metric_forecast_{name}",
        inputs=(
            Tensor(name="series", dtype="FP32", dims=(context_length,), unit="the metric's own"),
            Tensor(name="season_length", dtype="INT64", dims=(1,), unit="steps a day, 0 = none"),
            *((beside,) if companions else ()),
        ),
        outputs=(
            Tensor(
                name="forecast",
                dtype="FP32",
                dims=(horizon, len(quantiles)),
                unit="the metric's own",
            ),
            Tensor(name="source", dtype="INT32", dims=(1,)),
        ),
        max_batch_size=max_batch_size,
        max_length=context_length,
        tolerances={
            # Where a window's spread is a thousandth of its level, 1e-4 of the spread is one unit
            # in float32's last place: the maximum allows a few of those.
            "forecast": Tolerance(maximum=5e-4, percentile_99_9=5e-5, relative_to_input=True),
            "source": Tolerance(maximum=0.0, percentile_99_9=0.0, invariance=0.0),
        },
        # A hundredth of the window's spread is far below what a forecast is worth; where two
        # experts weigh alike ``source`` may name the other one.
        reduced_tolerances={
            "forecast": Tolerance(
                maximum=0.05, percentile_99_9=0.01, relative_to_input=True, invariance=0.01
            ),
            "source": Tolerance(maximum=2.0, percentile_99_9=2.0, invariance=2.0),
        },
        parameters={
            "context_length": str(context_length),
            "horizon": str(horizon),
            "quantiles": ",".join(f"{quantile:g}" for quantile in quantiles),
            "unit": "input",
            "sources": ",".join(sources_of(companions)),
            "step": "any; finer than 300 s is averaged to 300 s first"
            if horizon == 144
            else "any, as given",
            **({COMPANIONS: str(companions)} if companions else {}),
        },
    )
