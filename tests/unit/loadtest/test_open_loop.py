"""No coordinated omission: what a stalled server does to requests that were due meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from loadtest.load.open_loop import OpenLoop, Sent
from loadtest.load.recorder import ANSWERED, ERROR, NOT_SENT, Recorder, Records


class SlowServer:
    """A server in time of its own: answers take a while, and in the stall there are none."""

    def __init__(self, seconds: float, stall: tuple[float, float] = (0.0, 0.0)) -> None:
        self.now = 0.0
        self._seconds = seconds
        self._stall = stall

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def answer(self, _: float) -> Sent:
        first, last = self._stall
        if first <= self.now < last:
            self.now = last
        self.now += self._seconds
        return Sent(ANSWERED, self.now)


def ask(due: np.ndarray, server: SlowServer, give_up_seconds: float = 10.0) -> Records:
    """By one sender."""
    recorder = Recorder()
    loop = OpenLoop(
        0,
        due,
        recorder,
        begin=0.0,
        give_up_seconds=give_up_seconds,
        clock=lambda: server.now,
        sleep=server.sleep,
    )
    while loop.step(server.answer):
        pass
    assert loop.is_finished
    return recorder.records()


def test_a_stall_is_in_the_latency_of_all_that_were_due_in_it() -> None:
    """50 a second for 2 s, half a second of stall."""
    due = np.arange(100) * 0.02
    records = ask(due, SlowServer(0.001, (0.7, 1.2)))
    assert len(records) == records.count(ANSWERED) == len(due)
    # 25 requests were due in the stall and waited for its end, the first of them the longest.
    assert (records.seconds > 0.01).sum() >= 25
    assert records.seconds.max() == pytest.approx(0.501)
    assert np.quantile(records.seconds, 0.9) > 0.2
    # Counted from sending, as a closed loop counts, one request was slow.
    assert ((records.done - records.sent) > 0.01).sum() == 1


def test_what_cannot_be_sent_is_counted_and_nothing_is_lost() -> None:
    """Each answer takes 50 ms, ten times as many are due."""
    due = np.arange(200) * 0.005
    records = ask(due, SlowServer(0.05), give_up_seconds=0.2)
    assert len(records) == len(due)
    assert records.count(ANSWERED) + records.count(NOT_SENT) == len(due)
    assert records.count(NOT_SENT) > len(due) / 2
    assert "all senders were busy" in records.first_messages[0][0]
    sent = records.of(records.outcome == ANSWERED)
    assert (sent.sent - sent.due).max() <= 0.2 + 1e-9


def test_many_senders_send_each_request_once() -> None:
    recorder = Recorder()
    loop = OpenLoop(0, np.arange(2000) * 1e-6, recorder, begin=0.0, give_up_seconds=1e12)
    sent: list[float] = []

    def send(due: float) -> Sent:
        sent.append(due)
        return Sent(ANSWERED, due)

    def work(step: Callable[[Callable[[float], Sent]], bool]) -> None:
        while step(send):
            pass

    threads = [threading.Thread(target=work, args=(loop.step,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == len(set(sent)) == len(recorder.records()) == 2000
    assert loop.is_finished


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
