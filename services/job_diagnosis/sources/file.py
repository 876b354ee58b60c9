"""``FileSource``: a log that lies where the service can read it, such as a shared file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from contract.errors import InputError, ServerUnavailableError
from services.job_diagnosis.evidence import FileReference, JobEvidence

_BLOCK_BYTES = 1 << 20


class FileSource:
    """Only regular files below its folders, wherever links lead.

    Raises (``fetch``): InputError, ServerUnavailableError.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folder.resolve() for folder in folders)

    def fetch(self, reference: FileReference, /) -> JobEvidence:
        try:
            path = Path(reference.path).resolve()
        except (OSError, ValueError, RuntimeError):
            raise self._refused() from None
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise self._refused()
        try:
            # Not followed once more: what was checked is what is opened.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise self._refused() from None
        except OSError as error:
            raise ServerUnavailableError(
                "the log cannot be read", got=error.strerror or str(error)
            ) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise self._refused()
        return JobEvidence(_blocks(handle))

    @staticmethod
    def _refused() -> InputError:
        # The same for what is not there and what must not be read: nobody learns which.
        return InputError(
            "no log to be read at this path",
            where="path",
            expected="a file below a folder that the service was told of",
            next_command="start it with --files-below FOLDER",
        )


def _blocks(handle: int) -> Iterator[bytes]:
    with os.fdopen(handle, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
