"""The gateway in the background: what ``--detach`` started, so that ``down`` stops exactly that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.errors import ServerError, ServerSetupError
from contract.process_state import process_start, read_json_file, write_json_file

_STATE_FILE = "state.json"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class GatewayState:
    """``pid``'s start time tells it from a later process of that number. urls: by API."""

    pid: int
    pid_started: str
    urls: dict[str, str]

    def is_alive(self) -> bool:
        return process_start(self.pid) == self.pid_started


def read_state(folder: Path) -> GatewayState | None:
    """The recorded gateway when it is alive, else None."""
    try:
        state = GatewayState(**(read_json_file(folder / _STATE_FILE) or {}))
    except TypeError:
        return None
    return state if state.is_alive() else None


def write_own_state(folder: Path, urls: dict[str, str]) -> None:
    """Of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    state = GatewayState(os.getpid(), process_start(os.getpid()), urls)
    write_json_file(folder / _STATE_FILE, asdict(state))


def remove_state(folder: Path) -> None:
    (folder / _STATE_FILE).unlink(missing_ok=True)


def start_detached(folder: Path, words: Sequence[str]) -> GatewayState:
    """``python -m services <words>`` in a session of its own, once it listens.

    Raises ServerSetupError: one is up already, or it ended.
    """
    running = read_state(folder)
    if running is not None:
        raise ServerSetupError(
            "a gateway is up already",
            where=f"pid {running.pid}",
            next_command="stop it first: python -m services gateway down",
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_state(folder)
    problems = folder / "gateway.log"
    with (folder / "access.log").open("ab") as access, problems.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services", *words],
            stdin=subprocess.DEVNULL,
            stdout=access,
            stderr=errors,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        state = read_state(folder)
        if state is not None and state.pid == process.pid:
            return state
        time.sleep(0.05)
    process.kill()
    process.wait()
    lines = problems.read_text("utf-8", "replace").strip().splitlines()
    raise ServerSetupError(
        "the gateway did not start", where=str(problems), got=lines[-1] if lines else "no output"
    )


def stop_detached(folder: Path) -> bool:
    """Whether one was up. Raises ServerError: it does not end."""
    state = read_state(folder)
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while state.is_alive():
        if time.monotonic() > deadline:
            raise ServerError(
                "the gateway does not stop", where=f"pid {state.pid}", next_command="kill it"
            )
        time.sleep(0.05)
    return True
