"""Draws: a numpy generator's numbers, taken in blocks.

A log is made of thousands of single numbers; one call of a numpy generator for each would cost more
than all the rest of composing.
"""

from __future__ import annotations

import numpy as np

_FIRST_BLOCK = 256
_LARGEST_BLOCK = 8192


class Draws:
    """Uniform numbers of a generator, one at a time; deterministic for its state."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block: list[float] = []
        self._size = _FIRST_BLOCK

    def random(self) -> float:
        """A number from 0 up to but not including 1."""
        if not self._block:
            self._block = self._generator.random(self._size).tolist()
            self._size = min(_LARGEST_BLOCK, 2 * self._size)
        return self._block.pop()

    def integers(self, low: int, high: int | None = None) -> int:
        """A whole number from ``low`` (0 if only one is given) up to but not including ``high``."""
        if high is None:
            low, high = 0, low
        return low + int(self.random() * (high - low))

    def uniform(self, low: float, high: float) -> float:
        return low + self.random() * (high - low)
