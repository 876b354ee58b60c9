"""The machine's name, for the head of a table."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def processor() -> str:
    """``AMD EPYC``."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def hardware() -> str:
    """``2 cores of AMD EPYC``."""
    return f"{len(os.sched_getaffinity(0))} cores of {processor()}"
