"""The processes of a tritonserver: its own state, and the stub of each model instance.

A killed stub stays a zombie: Triton reaps only those that it ended itself. That is the earliest
and surest sign of a dead instance, seconds before a request fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_STUB = "triton_python_b"  # the kernel keeps 15 letters of triton_python_backend_stub
_CRASH_REPORTER = "addr2line"
_STOPPED = frozenset("Tt")
_DEAD = frozenset("ZX")


@dataclass(frozen=True)
class Stub:
    """One instance of one version. ``region``: its file below /dev/shm."""

    pid: int
    model: str
    version: str
    region: str


@dataclass(frozen=True)
class ServerProcesses:
    """What /proc says of a server: ``alive``, ``dead`` and ``stopped`` stubs."""

    stopped: bool = False
    crashing: bool = False
    """It prints a stack trace, which takes it longer than starting anew."""
    alive: frozenset[Stub] = frozenset()
    dead: frozenset[Stub] = frozenset()
    halted: frozenset[Stub] = frozenset()


class ProcessTable:
    """Remembers each stub while it has a command line: a zombie has none."""

    def __init__(self) -> None:
        self._known: dict[int, Stub] = {}

    def look(self, server_pid: int) -> ServerProcesses:
        alive: set[Stub] = set()
        dead: set[Stub] = set()
        halted: set[Stub] = set()
        seen: dict[int, Stub] = {}
        crashing = False
        for pid in _children(server_pid):
            name, state = _name_and_state(pid)
            crashing = crashing or name == _CRASH_REPORTER
            if name != _STUB:
                continue
            stub = self._known.get(pid) or _read_stub(pid)
            if stub is None:
                continue
            seen[pid] = stub
            kind = dead if state in _DEAD else halted if state in _STOPPED else alive
            kind.add(stub)
        self._known = seen
        return ServerProcesses(
            stopped=_name_and_state(server_pid)[1] in _STOPPED,
            crashing=crashing,
            alive=frozenset(alive),
            dead=frozenset(dead),
            halted=frozenset(halted),
        )


def _children(pid: int) -> Iterator[int]:
    # A child belongs to the thread that forked it.
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, path.read_text(encoding="utf-8").split())
        except OSError:
            continue


def _name_and_state(pid: int) -> tuple[str, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        head, tail = text.rsplit(")", 1)
        return head.split("(", 1)[1], tail.split()[0]
    except (OSError, IndexError, ValueError):
        return "", ""


def _read_stub(pid: int) -> Stub | None:
    """From ``stub MODEL_FOLDER/VERSION/FILE REGION …``."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    words = line.split("\0")
    if len(words) < 3:
        return None
    path = Path(words[1])
    return Stub(pid, path.parent.parent.name, path.parent.name, words[2])
