"""The open loop: requests are due when they are due, however long earlier ones take.

A bounded number of senders share the due moments of a flow. When all of them wait for answers, what
is due waits too, and that wait is part of its latency; what could not be sent in time, or at all,
is counted as such. Nothing is left out, so latencies know no coordinated omission.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtest.load.recorder import ERROR, NOT_SENT, Recorder


@dataclass(frozen=True)
class Sent:
    """What ``send`` tells: an outcome of the recorder, when the answer was there, and why not."""

    outcome: int
    done: float
    message: str = ""


class OpenLoop:
    """The due moments of one flow, handed out in order. For greenlets or threads.

    due: seconds from ``begin``, sorted
    give_up_seconds: a request that could not be sent this long after it was due is not sent
    """

    def __init__(
        self,
        flow: int,
        due: np.ndarray,
        recorder: Recorder,
        *,
        begin: float,
        give_up_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.flow = flow
        self._due = (due + begin).tolist()
        self._recorder = recorder
        self._give_up_seconds = give_up_seconds
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = 0
        self._open = 0

    @property
    def is_finished(self) -> bool:
        """Everything was sent or given up, and answered."""
        return self._next >= len(self._due) and self._open == 0

    def step(self, send: Callable[[float], Sent]) -> bool:
        """Wait for the next due moment and send; False: nothing is due any more.

        send: given the due moment, returns once it is answered
        """
        with self._lock:
            if self._next >= len(self._due):
                return False
            due = self._due[self._next]
            self._next += 1
            self._open += 1
        try:
            self._wait_and_send(due, send)
        finally:
            with self._lock:
                self._open -= 1
        return True

    def _wait_and_send(self, due: float, send: Callable[[float], Sent]) -> None:
        wait = due - self._clock()
        if wait > 0:
            self._sleep(wait)
        now = self._clock()
        if now - due > self._give_up_seconds:
            late = f"not sent within {self._give_up_seconds:g} s: all senders were busy"
            self._note(NOT_SENT, due, now, now, late)
            return
        try:
            answer = send(due)
        except BaseException as error:
            # Killed while it waited, when the run ended: still a request without an answer.
            self._note(ERROR, due, now, self._clock(), f"no answer: {type(error).__name__}")
            raise
        self._note(answer.outcome, due, now, answer.done, answer.message)

    def _note(self, outcome: int, due: float, sent: float, done: float, message: str) -> None:
        self._recorder.note(self.flow, outcome, due=due, sent=sent, done=done, message=message)

    def give_up_rest(self, until: float) -> int:
        """Count what was due before that moment and never sent; how many that were."""
        rest = [due for due in self._due[self._next :] if due < until]
        self._next = len(self._due)
        for due in rest:
            self._note(NOT_SENT, due, until, until, "the run ended first")
        return len(rest)
