"""``Recorder``: what became of every request of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ANSWERED, ERROR, WRONG, NOT_SENT = range(4)
OUTCOMES = ("answered", "error", "wrong", "not sent")
_MESSAGES_KEPT = 5


@dataclass(frozen=True)
class Records:
    """One row a request, in order of its end. Seconds count from the run's begin.

    flow, outcome: int (requests,); due, sent, done: float64 (requests,)
    first_messages: {flow: the first things that went wrong}
    """

    flow: np.ndarray
    outcome: np.ndarray
    due: np.ndarray
    sent: np.ndarray
    done: np.ndarray
    first_messages: dict[int, list[str]] = field(default_factory=dict)

    def of(self, chosen: np.ndarray) -> Records:
        """The same of some requests: bool (requests,)."""
        return Records(
            self.flow[chosen],
            self.outcome[chosen],
            self.due[chosen],
            self.sent[chosen],
            self.done[chosen],
            self.first_messages,
        )

    @property
    def seconds(self) -> np.ndarray:
        """From when a request was due, not from when it could be sent, to its answer."""
        seconds: np.ndarray = self.done - self.due
        return seconds

    def count(self, outcome: int) -> int:
        return int((self.outcome == outcome).sum())

    def __len__(self) -> int:
        return len(self.flow)

    def write(self, path: Path) -> None:
        np.savez(
            path,
            flow=self.flow,
            outcome=self.outcome,
            due=self.due,
            sent=self.sent,
            done=self.done,
        )

    @classmethod
    def read(cls, path: Path, first_messages: dict[int, list[str]]) -> Records:
        with np.load(path) as stored:
            return cls(
                **{name: stored[name] for name in stored.files}, first_messages=first_messages
            )


class Recorder:
    """Collects requests while they run; ``begin`` is the clock's reading at second 0."""

    def __init__(self, begin: float = 0.0) -> None:
        self.begin = begin
        self.first_messages: dict[int, list[str]] = {}
        self._rows: list[tuple[int, int, float, float, float]] = []

    def note(
        self, flow: int, outcome: int, *, due: float, sent: float, done: float, message: str = ""
    ) -> None:
        """All moments as the clock reads them. A request that was not sent has sent == done."""
        self._rows.append((flow, outcome, due - self.begin, sent - self.begin, done - self.begin))
        if outcome != ANSWERED:
            kept = self.first_messages.setdefault(flow, [])
            if len(kept) < _MESSAGES_KEPT and message not in kept:
                kept.append(message)

    def records(self) -> Records:
        table = np.array(self._rows, dtype=np.float64).reshape(-1, 5)
        return Records(
            table[:, 0].astype(np.int64),
            table[:, 1].astype(np.int64),
            table[:, 2],
            table[:, 3],
            table[:, 4],
            self.first_messages,
        )
