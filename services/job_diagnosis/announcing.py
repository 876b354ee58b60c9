"""``Notices``: who tells people of a diagnosis."""

from __future__ import annotations

from typing import Protocol

from services.job_diagnosis.record import JobRecord


class Notices(Protocol):
    """Called once for each new result, in order, by one thread, from a queue on disk.

    Raises (``announce``):
        ServerError: somebody could not be told; the same record comes again after a while. Who
            was told of its ``result_id`` already must not be told twice.
        Any other PresageError: it cannot be told; logged, counted, not repeated.
    """

    def announce(self, record: JobRecord) -> None: ...

    def close(self) -> None:
        """What it still holds is sent, or kept for the next start."""


class NoNotices:
    """Nobody is told."""

    def announce(self, record: JobRecord) -> None:
        pass

    def close(self) -> None:
        pass
