"""Repeating a request to a server that is away, with back-off, within a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from contract.errors import DeadlineExceededError, ServerUnavailableError

T = TypeVar("T")
_FIRST_DELAY_SECONDS = 0.3
_LARGEST_DELAY_SECONDS = 5.0


class Deadline:
    """Of one fetch. ``clock`` and ``sleep`` are the test's to change."""

    def __init__(
        self,
        what: str,
        seconds: float,
        *,
        attempts: int = 4,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._what = what
        self._seconds = seconds
        self._attempts = attempts
        self._clock = clock
        self._sleep = sleep
        self._ends = clock() + seconds

    def left(self) -> float:
        """Seconds. Raises DeadlineExceededError: none."""
        left = self._ends - self._clock()
        if left <= 0:
            raise DeadlineExceededError(
                f"{self._what} did not answer in time",
                expected=f"within {self._seconds:g} s",
                next_command="send the log itself, or name less of it",
            )
        return left

    def retry(self, attempt: Callable[[float], T]) -> T:
        """``attempt(seconds left)`` until it succeeds or fails for another reason.

        Raises ServerUnavailableError (after the last attempt), DeadlineExceededError, whatever
        else ``attempt`` raises.
        """
        delay = _FIRST_DELAY_SECONDS
        for number in range(1, self._attempts + 1):
            left = self.left()
            try:
                return attempt(left)
            except ServerUnavailableError:
                if number == self._attempts or self._ends - self._clock() <= delay:
                    raise
            self._sleep(delay)
            delay = min(2 * delay, _LARGEST_DELAY_SECONDS)
        raise AssertionError("no attempt")
