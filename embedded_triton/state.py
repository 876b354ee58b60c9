"""What ``up`` started, so that ``status`` and ``down`` find exactly that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from contract.process_state import process_start, read_json_file, write_json_file

STATE_FILE = "state.json"
VERDICT_FILE = "verdict.json"


@dataclass(frozen=True)
class ServerState:
    """``pid`` is the launcher's; its start time tells it from a later process of that number."""

    pid: int
    pid_started: str
    server_pid: int
    repository: str
    models: list[str]
    http_url: str
    grpc_url: str
    metrics_url: str
    log_file: str
    supervisor_url: str = ""

    def is_alive(self) -> bool:
        return process_start(self.pid) == self.pid_started


def write_state(folder: Path, state: ServerState) -> None:
    write_json_file(folder / STATE_FILE, asdict(state))


def read_state(folder: Path) -> ServerState | None:
    """The recorded server when its launcher is alive, else None."""
    try:
        state = ServerState(**(read_json_file(folder / STATE_FILE) or {}))
    except TypeError:
        return None
    return state if state.is_alive() else None


def remove_state(folder: Path) -> None:
    (folder / STATE_FILE).unlink(missing_ok=True)


def write_verdict(folder: Path, reason: str) -> None:
    """Why the supervisor gave the server up: nobody may have seen it exit."""
    write_json_file(folder / VERDICT_FILE, {"reason": reason})


def read_verdict(folder: Path) -> str | None:
    reason = (read_json_file(folder / VERDICT_FILE) or {}).get("reason")
    return None if reason is None else str(reason)


def remove_verdict(folder: Path) -> None:
    (folder / VERDICT_FILE).unlink(missing_ok=True)
