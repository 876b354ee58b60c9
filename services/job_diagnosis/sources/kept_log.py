"""``KeptLog``: a log while it is fetched, on disk when it is long: whole, or its end."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

_IN_MEMORY_BYTES = 4 << 20
_PIECE_BYTES = 1 << 16


class KeptLog:
    """``pieces``: all that was written; of more than ``largest_bytes`` at least the last half."""

    def __init__(self, largest_bytes: int) -> None:
        self._half = max(1, largest_bytes // 2)
        self._parts: list[SpooledTemporaryFile[bytes]] = []
        self._size = self._half

    def write(self, piece: bytes) -> None:
        if self._size >= self._half:
            if len(self._parts) == 2:
                self._parts.pop(0).close()
            # Closed by whoever has read it, or by `close`.
            self._parts.append(SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115
            self._size = 0
        self._parts[-1].write(piece)
        self._size += len(piece)

    def pieces(self) -> Iterator[bytes]:
        """Once; what was read is forgotten."""
        for part in self._parts:
            part.seek(0)
            while piece := part.read(_PIECE_BYTES):
                yield piece
            part.close()

    def close(self) -> None:
        for part in self._parts:
            part.close()
