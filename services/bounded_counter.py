"""``BoundedCounter``: a Prometheus counter whose label values are of unbounded variety."""

from __future__ import annotations

from prometheus_client import Counter

OTHER = "other"


class BoundedCounter:
    """The first ``limit`` label sets keep their names; all later ones share ``other``."""

    def __init__(self, counter: Counter, limit: int) -> None:
        self._counter = counter
        self._limit = limit
        self._known: set[tuple[str, ...]] = set()

    def add(self, count: int, *values: str, bounded: int) -> None:
        """``bounded``: how many of the values, from the first, are of unbounded variety."""
        head = values[:bounded]
        if head not in self._known:
            if len(self._known) >= self._limit:
                values = (OTHER,) * bounded + values[bounded:]
            else:
                self._known.add(head)
        self._counter.labels(*values).inc(count)
