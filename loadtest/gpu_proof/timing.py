"""Timing of sides in turns: in every round each runs once, so that a disturbance hits all alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Timing:
    """``rows_per_second``: median over the rounds; percentiles over every call."""

    rows_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    calls: int


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], rows: int, *, rounds: int, seconds: float
) -> dict[str, Timing]:
    """``rows``: of one call. ``seconds``: of one side in one round."""
    for call in calls.values():
        for _ in range(_WARM_UP_CALLS):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    rates: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            spent = _repeat(calls[name], seconds)
            taken[name] += spent
            rates[name].append(rows * len(spent) / sum(spent))
    return {name: _timing(rates[name], taken[name]) for name in calls}


def time_together(
    callers: list[Callable[[], object]], rows: int, *, rounds: int, seconds: float
) -> Timing:
    """All callers at once, each in a thread of its own."""
    for call in callers:
        call()
    taken: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        spent: list[list[float]] = [[] for _ in callers]
        failures: list[BaseException] = []

        def work(
            index: int,
            spent: list[list[float]] = spent,
            failures: list[BaseException] = failures,
        ) -> None:
            try:
                spent[index] = _repeat(callers[index], seconds)
            except BaseException as error:  # told by the thread that waits
                failures.append(error)

        started = time.perf_counter()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(callers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        whole = time.perf_counter() - started
        taken += [value for one in spent for value in one]
        rates.append(rows * sum(map(len, spent)) / whole)
    return _timing(rates, taken)


def _repeat(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call; at least two calls."""
    spent: list[float] = []
    until = time.perf_counter() + seconds
    while len(spent) < 2 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return spent


def _timing(rates: list[float], taken: list[float]) -> Timing:
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    return Timing(median(rates), 1000 * float(p50), 1000 * float(p99), len(taken))
