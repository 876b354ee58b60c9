"""What a detached program leaves for the command that stops it: a file that names one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot, "" when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def write_json_file(path: Path, document: dict[str, Any]) -> None:
    """Replaced at once: nobody reads half of it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json_file(path: Path) -> dict[str, Any] | None:
    """None where there is none, or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
