"""``ResidentMemory``: what a process holds, over time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO

_SAMPLE_SECONDS = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ResidentMemory:
    """Megabytes resident, sampled until the process ends or ``stop`` is called."""

    def __init__(self, pid: int) -> None:
        self._samples: list[float] = []
        self._end = threading.Event()
        self._file: IO[bytes] = Path(f"/proc/{pid}/statm").open("rb", buffering=0)  # noqa: SIM115
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[float]:
        self._end.set()
        self._thread.join()
        self._file.close()
        return self._samples

    def _run(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            try:
                self._file.seek(0)
                pages = int(self._file.read().split()[1])
            except (OSError, ValueError, IndexError):
                return
            if pages:
                self._samples.append(pages * _PAGE_BYTES / 1e6)
