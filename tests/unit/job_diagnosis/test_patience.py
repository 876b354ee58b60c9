"""After a database kept somebody waiting, nobody else waits but one."""

from __future__ import annotations

import pytest

from contract.errors import ServerUnavailableError
from services.job_diagnosis.patience import Patience


def test_one_asks_again_and_the_others_are_told_at_once() -> None:
    now = [100.0]
    patience = Patience(slow_seconds=2.0, again_seconds=2.0, clock=lambda: now[0])
    first, second = patience.enter(), patience.enter()
    now[0] += 10.0
    patience.leave(first, failed=True)
    patience.leave(second, failed=True)
    with pytest.raises(ServerUnavailableError):
        patience.enter()
    now[0] += 2.0
    probe = patience.enter()
    with pytest.raises(ServerUnavailableError):
        patience.enter()  # the probe is not back yet
    now[0] += 10.0
    patience.leave(probe, failed=True)
    with pytest.raises(ServerUnavailableError):
        patience.enter()
    now[0] += 2.0
    patience.leave(patience.enter(), failed=False)
    for _ in range(3):
        patience.leave(patience.enter(), failed=False)


def test_what_fails_at_once_may_be_tried_at_once() -> None:
    now = [100.0]
    patience = Patience(slow_seconds=2.0, clock=lambda: now[0])
    for _ in range(3):
        patience.leave(patience.enter(), failed=True)
