"""``TokenBucket``: so many at once, and so many a minute."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """For one thread. ``clock``: seconds, only ever forwards."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_minute / 60.0
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    @property
    def available(self) -> int:
        self._fill()
        # A billionth short is a token that rounding ate.
        return int(self._tokens + 1e-9)

    def take(self) -> None:
        self._fill()
        self._tokens -= 1.0

    @property
    def seconds_until_one(self) -> float:
        self._fill()
        return max(0.0, (1.0 - self._tokens) / self._per_second)

    def _fill(self) -> None:
        now = self._clock()
        passed = max(0.0, now - self._filled_at)
        self._tokens = min(float(self._burst), self._tokens + passed * self._per_second)
        self._filled_at = now
