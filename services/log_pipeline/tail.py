"""``tail``: follows files across rotation, truncation and absence, and delivers what is written."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from services.log_pipeline.delivery import Delivery, StoppedError
from services.log_pipeline.event import Event
from services.log_pipeline.joining import TracebackJoiner, as_line
from services.log_pipeline.lines import BLOCK_BYTES, MAXIMUM_LINE_BYTES, Oddities, split_lines

POLL_SECONDS = 0.25
_HOLD_SECONDS = 2.0
"""How long a line without an end, or a traceback that may go on, waits for the rest."""


class FollowedFile:
    """One path, whatever file lies there. ``read`` gives the whole lines written since.

    from_start: the file that lies there at first is read from its beginning, not from its end;
    files that come later always are.
    """

    def __init__(
        self,
        path: Path,
        odd: Oddities,
        *,
        from_start: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._odd = odd
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._inode = 0
        self._pending = b""
        self._skipping = False
        self._heard_at = clock()
        self._open(from_end=not from_start)

    def read(self) -> list[bytes]:
        """Empty when nothing was written; a half-written line waits for its rest."""
        lines: list[bytes] = []
        if self._file is not None:
            lines += self._read_open()
        if self._is_rotated():
            # Whoever wrote the old file may still have: read it to its end before leaving it.
            if self._file is not None:
                lines += self._read_open()
                self._file.close()
                self._file = None
            lines += self._give_up_pending()
            if self._open(from_end=False):
                self._odd["rotated"] += 1
                lines += self._read_open()
        elif self._pending and self._clock() - self._heard_at > _HOLD_SECONDS:
            lines += self._give_up_pending()
        return lines

    def close(self) -> list[bytes]:
        """What was written since the last look, and the half-written line that is left."""
        lines = self.read()
        if self._file is not None:
            while self._file.tell() < os.fstat(self._file.fileno()).st_size:
                lines += self._read_open()
            self._file.close()
            self._file = None
        return lines + self._give_up_pending()

    def _read_open(self) -> list[bytes]:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            # Truncated in place (copytruncate): the rest of it is new.
            self._odd["truncated"] += 1
            self._file.seek(0)
            self._pending, self._skipping = b"", False
        lines: list[bytes] = []
        chunk = self._file.read(BLOCK_BYTES)
        if not chunk:
            return lines
        self._heard_at = self._clock()
        block = self._pending + chunk
        cut = block.rfind(b"\n") + 1
        self._pending = block[cut:]
        if cut:
            lines = split_lines(block[:cut], self._odd)
            if self._skipping:
                # The first is the rest of a line that was told already.
                lines, self._skipping = lines[1:], False
        if len(self._pending) > MAXIMUM_LINE_BYTES:
            if not self._skipping:
                self._odd["long"] += 1
                lines += split_lines(self._pending[:MAXIMUM_LINE_BYTES], self._odd)
            self._pending, self._skipping = b"", True
        return lines

    def _give_up_pending(self) -> list[bytes]:
        pending, self._pending = self._pending, b""
        skipped, self._skipping = self._skipping, False
        if not pending or skipped:
            return []
        self._odd["unterminated"] += 1
        return split_lines(pending, self._odd)

    def _is_rotated(self) -> bool:
        try:
            return self._file is None or self.path.stat().st_ino != self._inode
        except OSError:
            return False  # moved away, and nothing new yet

    def _open(self, *, from_end: bool) -> bool:
        try:
            self._file = self.path.open("rb")
        except OSError:
            return False
        self._inode = os.fstat(self._file.fileno()).st_ino
        if from_end:
            self._file.seek(0, os.SEEK_END)
        return True


class Tail:
    """Follows several files; their lines are delivered in the order of each file."""

    def __init__(
        self,
        paths: Sequence[Path],
        delivery: Delivery,
        *,
        join: bool = False,
        from_start: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.odd = Oddities()
        self._delivery = delivery
        self._clock = clock
        self._files = [FollowedFile(p, self.odd, from_start=from_start) for p in paths]
        self._joiners = [TracebackJoiner() if join else None for _ in paths]
        self._quiet_since = [clock() for _ in paths]
        self._numbers = [0 for _ in paths]
        # Ids of another run must not hide this one's anomalies.
        self._run = secrets.token_hex(6)
        self.lines = 0

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; what is half-written then is delivered as it is."""
        try:
            while not stop.is_set():
                if not self.step():
                    stop.wait(POLL_SECONDS)
            self.step(last=True)
        except StoppedError:
            return

    def step(self, *, last: bool = False) -> int:
        """One look at every file; the lines that were new."""
        new = 0
        for index, file in enumerate(self._files):
            lines = file.close() if last else file.read()
            new += len(lines)
            self._deliver(index, self._joined(index, lines, last=last))
        self.lines += new
        if not new:
            self._delivery.tell()
        self._delivery.telemetry.odd(self.odd)
        return new

    def _joined(self, index: int, lines: list[bytes], *, last: bool) -> list[bytes]:
        joiner = self._joiners[index]
        if joiner is None:
            return lines
        now = self._clock()
        events = joiner.feed(lines)
        if lines:
            self._quiet_since[index] = now
        if last or now - self._quiet_since[index] > _HOLD_SECONDS:
            events += joiner.flush()
        return [as_line(event) for event in events]

    def _deliver(self, index: int, lines: list[bytes]) -> None:
        if not lines:
            return
        source, now = str(self._files[index].path), self._clock()
        started = self._numbers[index]
        self._numbers[index] += len(lines)
        self._delivery.deliver(
            [
                (Event(line, source, now), f"{self._run}-{index}-{started + offset}")
                for offset, line in enumerate(lines, 1)
            ]
        )
