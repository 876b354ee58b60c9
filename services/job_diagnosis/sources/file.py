"""``FileSource``: a log below one of the folders that the service was told to read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from contract.errors import ConfigError, InputError
from services.job_diagnosis.evidence import FileReference, JobEvidence

_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


class FileSource:
    """Of a file beyond ``largest_bytes`` its first quarter and its last three quarters are read.

    Links are followed as far as they stay below the folders.

    Raises ConfigError: a folder that is none.
    """

    def __init__(self, folders: Sequence[Path], *, largest_bytes: int = 256 << 20) -> None:
        self._largest_bytes = largest_bytes
        self._folders = []
        for folder in folders:
            try:
                resolved = folder.resolve(strict=True)
            except (OSError, RuntimeError) as error:
                raise ConfigError(
                    "logs cannot be read from the folder", where=str(folder), got=str(error)
                ) from error
            if not resolved.is_dir():
                raise ConfigError("logs cannot be read from it", where=str(folder), got="no folder")
            self._folders.append(resolved)

    def fetch(self, reference: FileReference, /) -> JobEvidence:
        """Raises InputError: no such log below the folders; or not to be read."""
        return JobEvidence(log=self._pieces(self._open(reference.path)))

    def _open(self, path: str) -> IO[bytes]:
        for candidate in self._candidates(path):
            # O_NONBLOCK: a pipe without a writer would be waited for, before it can be refused.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            try:
                descriptor = os.open(candidate, flags)
            except (OSError, ValueError):
                continue
            # What was really opened is judged, not what the name stood for a moment ago.
            if self._is_allowed(descriptor):
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
        # The same words for all: nobody learns here which files there are elsewhere.
        raise InputError(
            "no log to be read at this path",
            where="path",
            expected="a file below a folder that the service was told of",
            next_command="start it with --files-below FOLDER, or send the log itself",
        )

    def _candidates(self, path: str) -> Iterator[Path]:
        if not path or "\0" in path:
            return
        given = Path(path)
        for folder in self._folders:
            try:
                resolved = (folder / given).resolve()
            except (OSError, RuntimeError, ValueError):
                continue
            if resolved.is_relative_to(folder):
                yield resolved

    def _is_allowed(self, descriptor: int) -> bool:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        try:
            opened = Path(f"/proc/self/fd/{descriptor}").readlink()
        except OSError:
            return False
        return any(opened.is_relative_to(folder) for folder in self._folders)

    def _pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        with file:
            size = os.fstat(file.fileno()).st_size
            is_packed = file.read(2) == _GZIP
            file.seek(0)
            # Half of a packed file cannot be unpacked; whoever reads it knows his own limit.
            if size <= self._largest_bytes or is_packed:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
                return
            head = self._largest_bytes // 4
            tail = self._largest_bytes - head
            yield from _counted(file, head)
            yield b"\n"
            file.seek(size - tail)
            # The first line of the tail has no beginning.
            file.readline(_PIECE_BYTES)
            while piece := file.read(_PIECE_BYTES):
                yield piece


def _counted(file: IO[bytes], count: int) -> Iterator[bytes]:
    while count > 0:
        piece = file.read(min(_PIECE_BYTES, count))
        if not piece:
            return
        count -= len(piece)
        yield piece
