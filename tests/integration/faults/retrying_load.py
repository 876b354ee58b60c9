"""64 callers of `clients/` that ask without a break, retry, and check every answer."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from clients import AsyncLogAnomalyClient
from clients.policy import CallPolicy
from contract.errors import PresageError

CALLERS = 64
LONGEST_SECONDS = 1_800.0
# Patient for as long as the slowest promise, a server's restart on a busy machine, may take.
PATIENT = CallPolicy(deadline_seconds=180.0, attempts=1_000, largest_delay_seconds=1.0)
WORDS = (
    *("kernel", "panic", "disk", "full", "link", "flap", "ecc"),
    *("error", "retry", "memory", "node", "gpu", "fan", "reset"),
)
LINES = [" ".join(words) for words in itertools.permutations(WORDS, 3)]


class Refused(NamedTuple):
    """began, ended: monotonic."""

    began: float
    ended: float
    error: PresageError


@dataclass
class RetryingLoad:
    """``with RetryingLoad(urls, expected):`` asks gRPC and HTTP by turns until the block ends.

    expected: the score of each line, asked before; an answer that differs is wrong.
    """

    urls: list[str]
    expected: dict[str, float]
    callers: int = CALLERS
    policy: CallPolicy = PATIENT
    pause_seconds: float = 0.0
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When it was answered (monotonic) and how long it took, of each request."""
    failures: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    wrong: int = 0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self.policy.deadline_seconds + 30)
        assert not self._thread.is_alive(), "a caller hangs"

    def answered_since(self, moment: float) -> int:
        return sum(when >= moment for when, _ in self.latencies)

    async def _run(self) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            clients = [AsyncLogAnomalyClient(url, self.policy) for url in self.urls]
            try:
                await asyncio.gather(
                    *(
                        self._call(clients[number % len(clients)], number)
                        for number in range(self.callers)
                    )
                )
            finally:
                for client in clients:
                    await client.close()

    async def _call(self, client: AsyncLogAnomalyClient, number: int) -> None:
        lines = list(self.expected)
        for step in itertools.count():
            if self._stop.is_set():
                return
            line = lines[(number * 97 + step) % len(lines)]
            started = time.monotonic()
            try:
                [verdict] = await client.classify([line])
            except PresageError as error:
                self.failures[f"{type(error).__name__}: {error}"[:300]] += 1
                self.refused.append(Refused(started, time.monotonic(), error))
                await asyncio.sleep(0.02)
                continue
            now = time.monotonic()
            self.latencies.append((now, now - started))
            if abs(verdict.score - self.expected[line]) > 1e-4:
                self.wrong += 1
            if self.pause_seconds:
                await asyncio.sleep(self.pause_seconds)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
