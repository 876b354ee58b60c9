"""How soon something that died is started again, and when that is given up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestartPolicy:
    """The first restart is immediate; each further one within the window waits twice as long."""

    first_delay_seconds: float = 0.5
    largest_delay_seconds: float = 30.0
    crash_loop_restarts: int = 5
    window_seconds: float = 120.0


@dataclass
class RestartHistory:
    """Of one model, or of the server. Times are those of one monotonic clock, in seconds."""

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    total: int = 0
    _recent: deque[float] = field(default_factory=deque)

    def record(self, now: float) -> None:
        self.total += 1
        self._recent.append(now)

    def is_crash_loop(self, now: float) -> bool:
        """So many restarts within the window that another one would not help either."""
        self._forget(now)
        return len(self._recent) >= self.policy.crash_loop_restarts

    def not_before(self, now: float) -> float:
        """The earliest time for the next restart."""
        self._forget(now)
        if not self._recent:
            return now
        delay: float = self.policy.first_delay_seconds * 2 ** (len(self._recent) - 1)
        return self._recent[-1] + min(delay, self.policy.largest_delay_seconds)

    def forgive(self) -> None:
        """Somebody mended it: count from nothing."""
        self._recent.clear()

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0] > self.policy.window_seconds:
            self._recent.popleft()
