"""How many machines a load takes, from what was measured: the tables of deploy/k8s/README.md.

Nothing here is derived for hardware that was not measured: no figure of a CPU says anything about a
GPU, so those rows say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HEADROOM = 0.3
"""Share of each core that is kept free: for a pod that fails, for roll-outs, for bursts."""
CORES = 2
"""Of the machine that everything below was measured on: server, service and callers together."""


@dataclass(frozen=True)
class Measured:
    """``per_second`` on ``CORES`` cores; ``quoted`` is how README.md writes the figure."""

    what: str
    per_second: float
    quoted: str


LINES_REPEATED = Measured("log lines, real repetition", 358_515, "358,515")
LINES_NEW_NUMBERS = Measured("log lines, every number new", 80_912, "80,912")
LINES_SERVED = Measured(
    "log lines through `serve`, beside trainings that held the machine", 21_963, "21,963"
)
LINES_DISTINCT = Measured("log lines, every form new", 153, "153")
SERIES_IN_LOOP = Measured("series in the forecast loop's first cycle", 100_000 / 16.8, "16.8 s")
FORECASTS_BY_API = Measured("series by /predict, one a request", 1_540, "1,540")
LOOP_LARGEST_SERIES = 100_000
LOOP_LARGEST_MEMORY_MB = 555


@dataclass(frozen=True)
class Need:
    """What a load takes. ``units`` are machines of ``CORES`` cores like the measured one."""

    load: str
    measured: Measured
    units: int

    @property
    def cores(self) -> int:
        return self.units * CORES


def need(load: str, per_second: float, measured: Measured) -> Need:
    """The units for ``per_second``, each used to ``1 - HEADROOM``."""
    units = per_second / (measured.per_second * (1 - HEADROOM))
    # A result of 4.0000000001 is 4.
    return Need(load, measured, math.ceil(round(units, 6)))


def loops(series: int) -> int:
    """Forecast loops for so many series, none larger than the largest that was measured."""
    return math.ceil(series / LOOP_LARGEST_SERIES)


LINES_PER_SECOND = 1_000_000
SERIES_PER_MINUTE = 1_000_000
NEEDS = tuple(
    need("1 million log lines/s", LINES_PER_SECOND, measured)
    for measured in (LINES_REPEATED, LINES_NEW_NUMBERS, LINES_SERVED, LINES_DISTINCT)
) + tuple(
    need("1 million series/minute", SERIES_PER_MINUTE / 60, measured)
    for measured in (SERIES_IN_LOOP, FORECASTS_BY_API)
)


def capacity_table() -> str:
    """Markdown; committed in deploy/k8s/README.md, where a test compares it."""
    rows = [
        "| load | as measured on 2 cores | per second | units of 2 cores | cores | on GPUs |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {one.load} | {one.measured.what} | {one.measured.per_second:,.0f} | {one.units:,}"
        f" | {one.cores:,} | not measured |"
        for one in NEEDS
    ]
    count = loops(SERIES_PER_MINUTE)
    rows += [
        "",
        f"The largest loop that was measured has {LOOP_LARGEST_SERIES:,} series and"
        f" {LOOP_LARGEST_MEMORY_MB} MB: 1 million series are {count} loops of that size,"
        f" {count * LOOP_LARGEST_MEMORY_MB:,} MB, which share the cores above.",
    ]
    return "\n".join(rows) + "\n"
