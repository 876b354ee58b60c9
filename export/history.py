"""Who put which version into a repository, when, and why: one JSON line each.

``<repository>/.history/<triton name>.jsonl``; a version number that is in it is never used again.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

HISTORY = ".history"
WITHDRAWN = ".withdrawn"
Action = Literal["publish", "promote", "refused", "rollback"]


@dataclass(frozen=True)
class Entry:
    """One event. ``sha256``: of the model, tokenizer, labels, thresholds … that were bound."""

    when: str
    who: str
    action: Action
    triton_name: str
    version: int
    run_id: str
    why: str
    outcome: str
    sha256: dict[str, str]


def make_entry(
    action: Action,
    triton_name: str,
    version: int,
    *,
    run_id: str,
    why: str = "",
    outcome: str = "",
    sha256: dict[str, str] | None = None,
    who: str = "",
) -> Entry:
    return Entry(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        who=who or _whoami(),
        action=action,
        triton_name=triton_name,
        version=version,
        run_id=run_id,
        why=why,
        outcome=outcome,
        sha256=sha256 or {},
    )


def append(repository: Path, entry: Entry) -> None:
    """One line, on disk before this returns."""
    path = repository / HISTORY / f"{entry.triton_name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(entry), ensure_ascii=False) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read(repository: Path, triton_name: str) -> list[Entry]:
    """Oldest first. A line cut off by a crash is left out, the others stay readable."""
    path = repository / HISTORY / f"{triton_name}.jsonl"
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return entries


def largest_version(repository: Path, triton_name: str) -> int:
    """The largest number ever used, withdrawn ones included; 0 for none."""
    numbers = [entry.version for entry in read(repository, triton_name)]
    withdrawn = repository / WITHDRAWN / triton_name
    if withdrawn.is_dir():
        numbers += [int(path.name) for path in withdrawn.iterdir() if path.name.isdigit()]
    return max(numbers, default=0)


def table(entries: Sequence[Entry]) -> str:
    """One line per event, the newest last."""
    lines = [
        f"{'when':<26} {'who':<24} {'action':<9} {'model':<30} {'version':>7}  run, why, outcome"
    ]
    for entry in entries:
        words = [entry.run_id, entry.why, entry.outcome]
        model = entry.sha256.get("model.onnx") or entry.sha256.get("model.pt", "")
        if model:
            words.append(f"sha256 {model[:12]}")
        lines.append(
            f"{entry.when:<26} {entry.who:<24} {entry.action:<9} {entry.triton_name:<30}"
            f" {entry.version:>7}  {'; '.join(word for word in words if word)}"
        )
    return "\n".join(lines)


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
