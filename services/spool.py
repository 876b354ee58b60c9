"""``Spool``: what was acknowledged and is not delivered yet, on disk.

``append`` returns once the records are synced; only then may the shipper be told so. The reader
takes them in order and ``commit``s what is delivered. After a crash reading goes on at the last
commit: at least once, never less. Segments are files of JSON lines named by the number of their
first byte, so one number, the position, names a place in the whole stream.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from contract.errors import OverloadedError, ServerSetupError

SEGMENT_BYTES = 64 << 20
_CURSOR = "cursor"
_LOCK = "lock"
_IDENTITY = "identity"
_SUFFIX = ".jsonl"


class Spool:
    """One writer process and one reader thread.

    limit_bytes: of what is not delivered; beyond it ``append`` refuses
    fsync: False trusts the kernel: what is acknowledged survives kill -9, not a power cut

    Raises ServerSetupError: the folder cannot be written, or another process uses it.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = 1 << 30, fsync: bool = True) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._fsync = fsync
        self._written = threading.Condition()
        self._reader: IO[bytes] | None = None
        self._reader_start = -1
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._segments = self._mend()
            self._writer = self._open_segment(self._segments[-1])
        except OSError as error:
            raise ServerSetupError(
                "the spool cannot be used",
                where=str(folder),
                got=error.strerror or str(error),
                next_command="stop the other process that uses it, or choose another --spool",
            ) from error
        self.identity = self._read_identity()
        """Of this spool's stream: with a position it names a record for good."""
        self._end = self._segments[-1] + self._writer.tell()
        self._committed = min(max(self._read_cursor(), self._segments[0]), self._end)
        self.position = self._committed
        """Of the next record that ``read`` gives."""
        self.replayed_bytes = self._end - self._committed

    @property
    def backlog_bytes(self) -> int:
        """Acknowledged and not delivered."""
        return self._end - self._committed

    def append(self, records: Sequence[bytes]) -> None:
        """Records without newlines; synced when this returns.

        Raises OverloadedError: the spool is full; nothing of the records is kept.
        """
        block = b"".join(record + b"\n" for record in records)
        with self._written:
            if self.backlog_bytes + len(block) > self._limit_bytes:
                raise OverloadedError(
                    "the queue is full",
                    where=str(self.folder),
                    expected=f"at most {self._limit_bytes:,} bytes not delivered",
                    got=f"{self.backlog_bytes:,} and {len(block):,} more",
                    next_command="send again later",
                )
            if self._writer.tell() >= SEGMENT_BYTES:
                self._writer.close()
                self._segments.append(self._end)
                self._writer = self._open_segment(self._end)
                self._sync_folder()
            start = self._writer.tell()
            try:
                self._writer.write(block)
                self._writer.flush()
                if self._fsync:
                    os.fsync(self._writer.fileno())
            except OSError as error:
                # A full disk: whatever arrived of the block is not acknowledged, and not kept.
                self._writer.truncate(start)
                self._writer.seek(start)
                raise OverloadedError(
                    "the queue cannot be written",
                    where=str(self.folder),
                    got=error.strerror or str(error),
                    next_command="free the disk, then send again",
                ) from error
            self._end += len(block)
            self._written.notify_all()

    def read(self, limit_bytes: int, timeout_seconds: float) -> list[tuple[int, bytes]]:
        """The next records with their positions; empty after ``timeout_seconds`` of silence."""
        with self._written:
            self._written.wait_for(
                lambda: self._end > self.position or self._closed, timeout_seconds
            )
            if self._end == self.position or self._closed:
                return []
            start = max(s for s in self._segments if s <= self.position)
            following = [s for s in self._segments if s > self.position]
            stop = min(following[0] if following else self._end, self._end)
        if self._reader is None or self._reader_start != start:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._path(start).open("rb")
            self._reader_start = start
        self._reader.seek(self.position - start)
        block = self._reader.read(min(limit_bytes, stop - self.position))
        cut = block.rfind(b"\n") + 1
        if not cut:  # one record longer than the limit
            block += self._reader.readline()
            cut = len(block)
        records = []
        for record in block[:cut].split(b"\n")[:-1]:
            records.append((self.position, record))
            self.position += len(record) + 1
        return records

    def commit(self) -> None:
        """Everything that was read is delivered."""
        with self._written:
            temporary = self.folder / (_CURSOR + ".new")
            temporary.write_text(str(self.position))
            temporary.replace(self.folder / _CURSOR)
            self._committed = self.position
            while len(self._segments) > 1 and self._segments[1] <= self._committed:
                self._path(self._segments.pop(0)).unlink(missing_ok=True)

    def rewind(self) -> None:
        """Read again from the last commit."""
        self.position = self._committed

    def close(self) -> None:
        with self._written:
            self._closed = True
            self._written.notify_all()
            self._writer.close()
            self._lock.close()

    def _mend(self) -> list[int]:
        """Starts of the segments; what a killed writer left half-written was never acknowledged."""
        starts = sorted(int(p.stem) for p in self.folder.glob("*" + _SUFFIX) if p.stem.isdigit())
        if not starts:
            return [0]
        path = self._path(starts[-1])
        size = path.stat().st_size
        with path.open("rb+") as segment:
            end = size
            while end:
                begin = max(0, end - (1 << 16))
                segment.seek(begin)
                found = segment.read(end - begin).rfind(b"\n")
                if found >= 0:
                    end = begin + found + 1
                    break
                end = begin
            if end < size:
                segment.truncate(end)
        return starts

    def _read_cursor(self) -> int:
        try:
            return int((self.folder / _CURSOR).read_text())
        except (OSError, ValueError):
            return 0

    def _read_identity(self) -> str:
        path = self.folder / _IDENTITY
        if not path.is_file():
            path.write_text(secrets.token_hex(6))
        return path.read_text().strip()

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:020d}{_SUFFIX}"

    def _open_segment(self, start: int) -> IO[bytes]:
        segment = self._path(start).open("ab")
        segment.seek(0, os.SEEK_END)
        return segment

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
