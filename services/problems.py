"""``ProblemLog``: each problem is logged when it appears, then once an interval while it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_REMEMBERED = 10_000


class ProblemLog:
    """``report`` says whether it logged. A problem is known by what it concerns and its reason."""

    def __init__(
        self,
        logger: logging.Logger,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._logged: dict[tuple[str, str], float] = {}
        self._held_back: dict[tuple[str, str], int] = {}

    def report(self, concerns: str, reason: str, message: str) -> bool:
        key = (concerns, reason)
        now = self._clock()
        last = self._logged.get(key)
        if last is not None and now - last < self._interval_seconds:
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return False
        if len(self._logged) > _REMEMBERED:
            self._logged.clear()
        self._logged[key] = now
        times = self._held_back.pop(key, 0)
        again = f" (and {times} times more since)" if times else ""
        self._logger.warning("%s: %s: %s%s", concerns, reason, message, again)
        return True
