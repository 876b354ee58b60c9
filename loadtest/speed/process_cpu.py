"""``ProcessCpu``: what CPU time the processes of a server take, by what they are."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_STUB = "triton_python_backend_stub"


class ProcessCpu:
    """CPU seconds of a process and of everything below it, since this was made or last asked."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._read()

    def since(self) -> dict[str, float]:
        """{role: CPU seconds}: ``tritonserver``, a model for its Python processes, or the
        program's name; starts the next interval."""
        now = self._read()
        spent: dict[str, float] = {}
        for pid, (role, seconds) in now.items():
            spent[role] = spent.get(role, 0.0) + seconds - self._before.get(pid, ("", 0.0))[1]
        self._before = now
        return spent

    def _read(self) -> dict[int, tuple[str, float]]:
        found = {}
        waiting = [self._pid]
        while waiting:
            pid = waiting.pop()
            try:
                fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
                role = _role(Path(f"/proc/{pid}/cmdline").read_bytes())
                children = [
                    int(child)
                    for task in Path(f"/proc/{pid}/task").iterdir()
                    for child in (task / "children").read_text("utf-8").split()
                ]
            except OSError:
                continue  # it ended meanwhile
            found[pid] = (role, (int(fields[11]) + int(fields[12])) * _TICK_SECONDS)
            waiting += children
        return found


def _role(command: bytes) -> str:
    words = command.split(b"\0")
    program = Path(words[0].decode(errors="replace")).name
    if program != _STUB:
        return program
    # Its first argument is <repository>/<model>/<version>/<file>.
    return Path(words[1].decode(errors="replace")).parts[-3]
