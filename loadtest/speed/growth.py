"""How cost grows: the exponent b of seconds = a · size^b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A fixed cost of each call pulls the exponent below 1; above this, cost outgrows its cause.
LINEAR_UP_TO = 1.1


@dataclass(frozen=True)
class Growth:
    """seconds: of each size, medians. exponent: least squares on the logarithms."""

    of: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float

    @property
    def linear(self) -> bool:
        return self.exponent <= LINEAR_UP_TO


def fit_growth(of: str, sizes: Sequence[int], seconds: Sequence[float]) -> Growth:
    """At least two sizes; raises ValueError for fewer, or for what has no logarithm."""
    if len(sizes) < 2 or len(set(sizes)) < 2 or min(*sizes, *seconds) <= 0:
        raise ValueError(f"{of}: no exponent of sizes {list(sizes)} and seconds {list(seconds)}")
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return Growth(of, tuple(sizes), tuple(seconds), float(slope))
