"""No coordinated omission: what a stalled server does to requests that were due meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from loadtest.open_loop import OpenLoop, Sent
from loadtest.recorder import ANSWERED, ERROR, NOT_SENT, Recorder, Records


class SlowServer:
    """Answers in no time, but for one stall: whoever comes in it waits for its end."""

    def __init__(self, stall_from: float, stall_until: float) -> None:
        self._stall = (stall_from, stall_until)

    def answer(self) -> None:
        first, last = self._stall
        now = time.monotonic()
        if first <= now < last:
            time.sleep(last - now)


def run(
    due: np.ndarray, send: Callable[[float], Sent], *, senders: int, give_up_seconds: float = 10.0
) -> Records:
    recorder = Recorder(time.monotonic())
    loop = OpenLoop(0, due, recorder, begin=recorder.begin, give_up_seconds=give_up_seconds)

    def work() -> None:
        while loop.step(send):
            pass

    threads = [threading.Thread(target=work) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loop.is_finished
    return recorder.records()


def test_a_stall_is_in_the_latency_of_all_that_were_due_in_it() -> None:
    """50 a second for 2 s, half a second of stall, two senders. A closed loop would have sent two
    requests into the stall and called all others fast."""
    due = np.arange(0, 2, 0.02)
    server = SlowServer(time.monotonic() + 0.7, time.monotonic() + 1.2)

    def send(_: float) -> Sent:
        server.answer()
        return Sent(ANSWERED, time.monotonic())

    records = run(due, send, senders=2)
    assert len(records) == len(due)
    assert records.count(ANSWERED) == len(due)
    # 25 requests were due in the stall, and waited 0.25 s on average.
    assert (records.seconds > 0.1).sum() >= 15
    assert records.seconds.max() > 0.4
    # Counted from sending, only those that were on their way would show it.
    assert ((records.done - records.sent) > 0.1).sum() <= 4
    assert (records.sent >= records.due - 1e-6).all()


def test_what_cannot_be_sent_is_counted_and_nothing_is_lost() -> None:
    """One sender, each answer takes 50 ms, ten times as many are due."""
    due = np.arange(0, 1, 0.005)

    def send(_: float) -> Sent:
        time.sleep(0.05)
        return Sent(ANSWERED, time.monotonic())

    records = run(due, send, senders=1, give_up_seconds=0.2)
    assert len(records) == len(due)
    assert records.count(ANSWERED) + records.count(NOT_SENT) == len(due)
    assert records.count(NOT_SENT) > len(due) / 2
    assert "all senders were busy" in records.first_messages[0][0]
    # What was sent left at most so late.
    sent = records.of(records.outcome == ANSWERED)
    assert (sent.sent - sent.due).max() <= 0.2 + 1e-6


def test_what_was_due_before_the_end_and_never_taken_failed() -> None:
    recorder = Recorder(100.0)
    loop = OpenLoop(
        3,
        np.array([1.0, 2.0, 3.0, 9.0]),
        recorder,
        begin=100.0,
        give_up_seconds=5.0,
        clock=lambda: 101.0,
        sleep=lambda _: None,
    )
    assert loop.step(lambda due: Sent(ANSWERED, due + 0.5))
    assert loop.give_up_rest(104.0) == 2
    records = recorder.records()
    assert records.outcome.tolist() == [ANSWERED, NOT_SENT, NOT_SENT]
    assert records.due.tolist() == [1.0, 2.0, 3.0]
    assert loop.is_finished


def test_a_request_that_is_killed_is_an_error_not_a_gap() -> None:
    recorder = Recorder(0.0)
    loop = OpenLoop(0, np.array([0.0]), recorder, begin=0.0, give_up_seconds=5.0, clock=lambda: 0.0)

    def send(_: float) -> Sent:
        raise SystemExit

    with pytest.raises(SystemExit):
        loop.step(send)
    assert recorder.records().outcome.tolist() == [ERROR]
    assert loop.is_finished
