"""Runs tritonserver and takes it down when its launcher is gone, however that died.

Started by EmbeddedServer as ``python guard.py LAUNCHER_PID REGION_PREFIX COMMAND…``; stdlib only,
no imports from the project, because it runs as a file. Its stdin is a pipe from the launcher: end
of file means stop. tritonserver leads a process group of its own, so that stubs orphaned by a
kill -9 of the server are found and ended too. What is left in shared memory, files that begin with
REGION_PREFIX, is removed: until the next boot nobody else would.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 20.0


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(launcher: int, region_prefix: str, command: list[str]) -> int:
    """Run ``command`` until it ends or the launcher does; return its exit code."""
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_guard
    )
    print(json.dumps({"server_pid": server.pid}), flush=True)
    try:
        while server.poll() is None and not stopping:
            readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
            stopping = (
                stopping or os.getppid() != launcher or bool(readable and not os.read(0, 4096))
            )
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_DRAIN_SECONDS)
    finally:
        _end_group(server.pid)
        _remove_regions(region_prefix)
    return server.wait()


def _end_group(group: int) -> None:
    """Kill what is left of the server's process group, and wait until it is gone."""
    for _ in range(50):
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
        # The server itself is our child: reap it, else it stays in the group as a zombie.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(group, os.WNOHANG)
        time.sleep(0.05)


def _remove_regions(prefix: str) -> None:
    for path in pathlib.Path("/dev/shm").glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
