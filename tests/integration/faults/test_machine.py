"""Faults of the machine below: shared memory nearly full, a log nobody reads, a jumping clock."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched, launched, wait_until
from tests.integration.faults.private_mounts import filled, require_private_mounts, with_tmpfs
from tests.integration.faults.retrying_load import RetryingLoad

FAULT, PROMISE = "clock jump, log pipe closed, /dev/shm nearly full", "no hang"
PATIENCE_SECONDS = 120.0
CLOCK = Path(__file__).with_name("jumping_clock.c")
HOUR_NANOSECONDS = 3_600 * 10**9


def loaded(server: Launched, expected: dict[str, float]) -> RetryingLoad:
    state = server.state
    urls = [f"grpc://{state['grpc_url']}", f"http://{state['http_url']}"]
    return RetryingLoad(urls, expected, callers=8)


def wait_answers(load: RetryingLoad, count: int) -> float:
    moment = time.monotonic()
    return wait_until(
        lambda: load.answered_since(moment) >= count, PATIENCE_SECONDS, f"{count} answers"
    )


@pytest.mark.slow
@pytest.mark.promise(fault=FAULT, promise=PROMISE)
def test_shared_memory_nearly_full(
    tiny_repository: Path,
    expected_scores: dict[str, float],
    tmp_path: Path,
    repository_root: Path,
    promise: Promise,
) -> None:
    require_private_mounts()
    own = with_tmpfs(Path("/dev/shm"), "160m")
    with (
        launched(tiny_repository, tmp_path / "run", repository_root, *own) as server,
        loaded(server, expected_scores) as load,
    ):
        wait_answers(load, 100)
        with filled(Path(f"/proc/{server.process.pid}/root/dev/shm"), leave_bytes=64 << 10):
            wait_answers(load, 100)
            pid = server.server_pid
            os.kill(server.stubs("double")[0].pid, signal.SIGKILL)
            time.sleep(3)
            # Nothing can be loaded, but whoever is loaded answers.
            wait_answers(load, 100)
        back = wait_until(lambda: server.ready, PATIENCE_SECONDS, "ready")
        assert server.server_pid == pid
    assert load.failures == {}
    assert load.wrong == 0
    promise.measured(
        f"/dev/shm with 64 kB left: {len(load.latencies):,} answers, 0 failed, 0 wrong; a model"
        f" killed meanwhile back {back:.1f} s after there was room"
    )


@pytest.mark.slow
@pytest.mark.promise(fault=FAULT, promise=PROMISE)
def test_nobody_reads_the_log(
    tiny_repository: Path,
    expected_scores: dict[str, float],
    tmp_path: Path,
    repository_root: Path,
    promise: Promise,
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    # A pipe that is read for a while, then by nobody: what the supervisor says goes nowhere.
    to_fifo = ["sh", "-c", f'exec "$@" > {fifo} 2>&1', "sh"]
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.DEVNULL)
    try:
        with launched(
            tiny_repository, tmp_path / "run", repository_root, *to_fifo, wait=False
        ) as server:
            wait_until(lambda: server.ready, PATIENCE_SECONDS, "ready")
            reader.kill()
            reader.wait()
            with loaded(server, expected_scores) as load:
                wait_answers(load, 50)
                for _ in range(2):
                    restarts = server.restarts("double")
                    # The newest: of the model before its restart some may not have ended yet.
                    os.kill(server.stubs("double")[-1].pid, signal.SIGKILL)
                    wait_until(
                        lambda: server.restarts("double") > restarts and server.ready,  # noqa: B023
                        PATIENCE_SECONDS,
                        "the stub is replaced",
                    )
                wait_answers(load, 50)
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(PATIENCE_SECONDS)
    finally:
        reader.kill()
    assert code == 0
    assert load.failures == {}
    assert load.wrong == 0
    promise.measured("log pipe closed: two killed stubs replaced, 0 failed, stopped with code 0")


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Variables that give a program our clock, and the file that holds how far it is off.

    The machine's own clock belongs to everybody on it, and a time namespace holds only the
    monotonic ones: so libc's calendar clock is replaced, and every wait that is told by it.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("gcc is not installed: no clock to jump with")
    library, offset = tmp_path / "jumping_clock.so", tmp_path / "offset"
    offset.write_bytes(struct.pack("<q", 0))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK, "-ldl", "-lpthread"], check=True
    )
    return {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(offset)}, offset


def _jump(offset: Path, nanoseconds: int) -> None:
    with offset.open("r+b") as file:
        file.write(struct.pack("<q", nanoseconds))


@pytest.mark.slow
@pytest.mark.promise(fault=FAULT, promise=PROMISE)
def test_a_jumping_clock(
    clock: tuple[dict[str, str], Path],
    tiny_repository: Path,
    expected_scores: dict[str, float],
    tmp_path: Path,
    repository_root: Path,
    promise: Promise,
) -> None:
    variables, offset = clock
    own = ["env", *(f"{name}={value}" for name, value in variables.items())]
    with (
        launched(tiny_repository, tmp_path / "run", repository_root, *own) as server,
        loaded(server, expected_scores) as load,
    ):
        wait_answers(load, 100)
        pid = server.server_pid
        slowest = 0.0
        for hours in (1, -1, 24, 0):
            _jump(offset, hours * HOUR_NANOSECONDS)
            slowest = max(slowest, wait_answers(load, 100))
        restarts = server.restarts("double")
        _jump(offset, -2 * HOUR_NANOSECONDS)
        os.kill(server.stubs("double")[0].pid, signal.SIGKILL)
        wait_until(
            lambda: server.restarts("double") > restarts and server.ready,
            PATIENCE_SECONDS,
            "the stub is replaced",
        )
        assert server.server_pid == pid
        assert server.restarts("tritonserver") == 0
    assert load.failures == {}
    assert load.wrong == 0
    promise.measured(
        f"clock +1 h, −1 h, +24 h, back: 100 answers each within {slowest:.1f} s, 0 failed, 0"
        " wrong; a killed stub replaced at −2 h"
    )
