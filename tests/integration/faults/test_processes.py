"""Killed and stopped processes under the load of 64 retrying callers."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from contract.process_state import process_start
from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, launched, wait_until
from tests.integration.faults.retrying_load import CALLERS, RetryingLoad

PATIENCE_SECONDS = 90.0
DROPPED = re.compile("reset|Socket closed|CANCELLED")


def loaded(server: Launched, expected: dict[str, float]) -> RetryingLoad:
    state = server.state
    return RetryingLoad([f"grpc://{state['grpc_url']}", f"http://{state['http_url']}"], expected)


def wait_answers(load: RetryingLoad, count: int = 2 * CALLERS) -> float:
    """Seconds until so many new answers have come."""
    moment = time.monotonic()
    return wait_until(
        lambda: load.answered_since(moment) >= count, PATIENCE_SECONDS, f"{count} answers"
    )


@pytest.mark.parametrize("model", ["log_anomaly_classifier", "log_anomaly"])
@pytest.mark.promise(
    fault="kill -9 a model's stub",
    promise="serving again ≤ 5 s, retrying clients see 0 failures, no orphan",
)
def test_a_killed_stub_is_replaced(
    model: str, server: Launched, expected_scores: dict[str, float], promise: Promise
) -> None:
    with loaded(server, expected_scores) as load:
        wait_answers(load)
        before, restarts = server.stubs(model), server.restarts(model)
        server_restarts = server.restarts("tritonserver")
        os.kill(before[0].pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(
            lambda: server.restarts(model) > restarts, PATIENCE_SECONDS, "the death is noticed"
        )
        wait_until(lambda: server.ready, PATIENCE_SECONDS, "ready again")
        seconds = time.monotonic() - killed
        wait_answers(load)
    assert load.failures == {}
    assert load.wrong == 0
    # A classifier's error, handed on by its front, once took the whole server down.
    assert server.restarts("tritonserver") == server_restarts
    old = {stub.pid for stub in before}

    def only_new() -> bool:
        pids = {stub.pid for stub in server.stubs(model)}
        return len(pids) == len(old) and not pids & old

    wait_until(only_new, PATIENCE_SECONDS, "no stub of the dead generation is left")
    wait_until(
        lambda: not any(Path("/dev/shm", stub.region).exists() for stub in before),
        PATIENCE_SECONDS,
        "its shared memory is gone",
    )
    promise.measured(
        f"{model}: serving again after {seconds:.1f} s, {len(load.latencies):,} answers,"
        " 0 failed, 0 wrong, no orphan"
    )
    assert seconds <= promise.limit_seconds(5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.promise(
    fault="kill -9 / SIGSTOP tritonserver",
    promise="noticed ≤ 5 s, back ≤ 15 s",
)
def test_a_dead_server_is_replaced(
    number: signal.Signals,
    server: Launched,
    expected_scores: dict[str, float],
    promise: Promise,
) -> None:
    with loaded(server, expected_scores) as load:
        wait_answers(load)
        pid = server.server_pid
        os.kill(pid, number)
        hit = time.monotonic()
        noticed = wait_until(lambda: not server.ready, PATIENCE_SECONDS, "not ready")
        wait_until(lambda: server.ready and server.server_pid != pid, PATIENCE_SECONDS, "ready")
        back = time.monotonic() - hit
        wait_answers(load)
    assert load.failures == {}
    assert load.wrong == 0
    assert not process_start(pid), "the old server is gone"
    promise.measured(
        f"{number.name}: noticed after {noticed:.1f} s, back after {back:.1f} s, 0 failed, 0 wrong"
    )
    assert noticed <= promise.limit_seconds(5)
    assert back <= promise.limit_seconds(15)


@pytest.mark.promise(
    fault="SIGTERM",
    promise="accepted requests all answered, new ones refused with UNAVAILABLE",
)
def test_a_drain_answers_what_was_accepted(
    tiny_repository: Path,
    expected_scores: dict[str, float],
    tmp_path: Path,
    repository_root: Path,
    promise: Promise,
) -> None:
    import grpc.aio  # noqa: F401  (its threads start before the server ends)

    from clients.policy import CallPolicy

    with launched(tiny_repository, tmp_path / "run", repository_root) as server:
        once = CallPolicy(attempts=1, deadline_seconds=60)
        load = loaded(server, expected_scores)
        load.urls, load.policy = load.urls[:1], once
        with load:
            wait_answers(load)
            server.process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            code = server.process.wait(60)
            seconds = time.monotonic() - asked
            time.sleep(0.3)
        assert code == 0
        kinds = {type(one.error).__name__ for one in load.refused}
        assert kinds == {"ServerUnavailableError"}, load.failures
        # A request that was accepted and dropped would end as one of these. One that was asked
        # after others had been refused was not accepted: the server ended before it said so.
        dropped = [one for one in load.refused if DROPPED.search(str(one.error))]
        shut = min(one.ended for one in load.refused if not DROPPED.search(str(one.error)))
        lost = [str(one.error) for one in dropped if one.began < shut]
        assert lost == []
        assert load.wrong == 0
        assert server.group() == []
    promise.measured(
        f"{len(load.latencies):,} answered, {len(load.refused):,} refused as UNAVAILABLE,"
        f" 0 dropped; down after {seconds:.1f} s, no process left"
    )
