"""How long a call may take and when it is repeated."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from contract.errors import DeadlineExceededError, PresageError, ServerUnavailableError


class Deadline:
    """The moment until which a whole client call may take, however many requests it is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        return self._at - time.monotonic()


@dataclass(frozen=True)
class CallPolicy:
    """``deadline_seconds`` bounds a whole client call with all its requests and retries.

    Only ServerUnavailableError is retried: everything else would fail again, or was done already.
    """

    deadline_seconds: float = 60.0
    attempts: int = 5
    first_delay_seconds: float = 0.1
    largest_delay_seconds: float = 2.0
    in_flight: int = 8

    def deadline(self, seconds: float | None = None) -> Deadline:
        """Of a call that begins now; None is the policy's."""
        return Deadline(self.deadline_seconds if seconds is None else seconds)

    def delay_after(self, attempt: int, error: PresageError, seconds_left: float) -> float | None:
        """Seconds to wait before the next attempt (with jitter), or None to give up."""
        if not isinstance(error, ServerUnavailableError) or attempt + 1 >= self.attempts:
            return None
        ceiling = min(self.largest_delay_seconds, self.first_delay_seconds * 2**attempt)
        delay = ceiling * random.uniform(0.5, 1.0)
        return delay if delay < seconds_left else None


def deadline_error(model: str, seconds: float) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{model}: no answer in time",
        expected=f"an answer within {seconds:g} s",
        next_command="raise deadline_seconds, or look at the server: python -m clients health",
    )
