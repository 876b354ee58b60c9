#!/usr/bin/env python3
"""Processes that hang in the kernel (state D): they wait for storage or a driver.

Nothing kills them. A process is stuck when it was in state D at the run before, too, and has not
been given a CPU in between (its context switches have not changed). For that, what was seen is kept
in the state folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metric_text import Metrics, arguments, complain, read_text

SHOWN = 20


class Process(NamedTuple):
    """``key`` tells it from a later process of the same number."""

    key: str
    pid: str
    command: str
    state: str
    switches: str
    where: str


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="stuck from then on (%(default)s)"
    )
    given = parser.parse_args()
    processes = list(find_processes(given.root))
    since = remembered(given.state, given.root, processes)
    now = time.time()
    metrics = Metrics()
    states: dict[str, int] = {}
    for process in processes:
        states[process.state] = states.get(process.state, 0) + 1
    metrics.declare("node_processes_state", "gauge", "Processes by their state.")
    for state, count in sorted(states.items()):
        metrics.add("node_processes_state", {"state": state}, count)
    stuck = sorted(
        (
            (since[process.key], process)
            for process in processes
            if process.key in since and now - since[process.key] >= given.seconds
        ),
        key=lambda one: one[0],
    )
    metrics.declare("node_stuck_processes", "gauge", "Processes that hang in the kernel.")
    metrics.add("node_stuck_processes", {}, len(stuck))
    name = "node_stuck_process_seconds"
    metrics.declare(name, "gauge", f"How long the {SHOWN} that hang longest have hung.")
    for seen, process in stuck[:SHOWN]:
        labels = {"pid": process.pid, "command": process.command, "where": process.where}
        metrics.add(name, labels, round(now - seen))
    metrics.write()


def find_processes(root: Path) -> Iterator[Process]:
    for folder in root.glob("proc/[0-9]*"):
        # The name in parentheses may hold anything, parentheses too.
        head, found, rest = read_text(folder / "stat").rpartition(")")
        fields = rest.split()
        if not found or len(fields) < 20:
            continue
        command, state, started = head.partition("(")[2], fields[0], fields[19]
        switches = where = ""
        if state == "D":
            switches = ",".join(
                line.split()[1]
                for line in read_text(folder / "status").splitlines()
                if "ctxt_switches" in line
            )
            where = read_text(folder / "wchan")
        yield Process(f"{folder.name}/{started}", folder.name, command, state, switches, where)


def remembered(state: Path | None, root: Path, processes: list[Process]) -> dict[str, float]:
    """Process → when it was first seen where it still hangs. Without a state folder: nothing."""
    if state is None:
        complain("no state folder: what hangs cannot be told from what only waits")
        return {}
    file = state / "stuck_processes.json"
    boot = read_text(root / "proc/sys/kernel/random/boot_id")
    before: dict[str, tuple[str, float]] = {}
    try:
        given = json.loads(file.read_text("utf-8"))
        before = given["seen"] if given["boot"] == boot else {}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        complain(f"{file}: starting anew: {error}")
    now = time.time()
    seen: dict[str, tuple[str, float]] = {}
    for process in processes:
        if process.state == "D":
            switches, first = before.get(process.key, ("", now))
            since = first if switches == process.switches else now
            seen[process.key] = (process.switches, since)
    try:
        state.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"boot": boot, "seen": seen}), "utf-8")
        new.replace(file)
    except OSError as error:
        complain(f"{file}: {error}")
    return {key: first for key, (_, first) in seen.items()}


if __name__ == "__main__":
    main()
