"""What ``up`` started, so that ``status`` and ``down`` find exactly that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

STATE_FILE = "state.json"


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

    def is_alive(self) -> bool:
        return process_start(self.pid) == self.pid_started


def process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot, "" when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def write_state(folder: Path, state: ServerState) -> None:
    temporary = folder / (STATE_FILE + ".partial")
    temporary.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / STATE_FILE)


def read_state(folder: Path) -> ServerState | None:
    """The recorded server when its launcher is alive, else None."""
    try:
        state = ServerState(**json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.is_alive() else None


def remove_state(folder: Path) -> None:
    (folder / STATE_FILE).unlink(missing_ok=True)
