"""``Batcher``: requests that arrive while a model is busy are asked together in the next call.

Nobody is kept waiting for company: a request that finds the model idle is asked at once. Rows do
not influence one another (the parity gate proves it: ``invariance`` in the manifest), so an answer
is the one that the row would get alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from contract.errors import DeadlineExceededError, InputError, OverloadedError, ServerAnswerError

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")
Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Row, Answer]):
    rows: Sequence[Row]
    answers: asyncio.Future[list[Answer]]
    deadline: float


class Batcher(Generic[Key, Row, Answer]):
    """Rows of one key may share a call.

    ask: (key, rows, deadline_seconds) -> one answer a row, in order
    calls_in_flight: of one key. batch_rows: of one call, unless one request has more.
    queue_rows: of all keys; beyond it OverloadedError.
    """

    def __init__(
        self,
        ask: Callable[[Key, list[Row], float], Awaitable[list[Answer]]],
        *,
        calls_in_flight: int,
        batch_rows: int,
        queue_rows: int,
    ) -> None:
        self._ask = ask
        self._calls_in_flight = calls_in_flight
        self._batch_rows = batch_rows
        self._queue_rows = queue_rows
        self._queues: dict[Key, deque[_Waiting[Row, Answer]]] = {}
        self._running: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.queued_rows = 0

    async def __call__(
        self, key: Key, rows: Sequence[Row], deadline_seconds: float
    ) -> list[Answer]:
        """Raises OverloadedError, DeadlineExceededError, and what ``ask`` raises."""
        if self.queued_rows + len(rows) > self._queue_rows:
            raise OverloadedError(
                "too many rows are waiting", expected=f"at most {self._queue_rows}"
            )
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Row, Answer] = _Waiting(
            rows, loop.create_future(), time.monotonic() + deadline_seconds
        )
        queue = self._queues.setdefault(key, deque())
        queue.append(waiting)
        self.queued_rows += len(rows)
        if len(queue) == 1:
            # After what arrived in the same moment was taken in too.
            loop.call_soon(self._start, key)
        try:
            async with asyncio.timeout(deadline_seconds):
                return await waiting.answers
        except TimeoutError:
            raise DeadlineExceededError(
                "no answer in time", expected=f"an answer within {deadline_seconds:g} s"
            ) from None

    def _start(self, key: Key) -> None:
        queue = self._queues.get(key)
        while queue and self._running.get(key, 0) < self._calls_in_flight:
            together: list[_Waiting[Row, Answer]] = []
            count = 0
            while queue and (not together or count + len(queue[0].rows) <= self._batch_rows):
                waiting = queue.popleft()
                self.queued_rows -= len(waiting.rows)
                if waiting.answers.done():
                    continue  # it gave up
                together.append(waiting)
                count += len(waiting.rows)
            if together:
                self._running[key] = self._running.get(key, 0) + 1
                task = asyncio.ensure_future(self._call(key, together))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if not queue and not self._running.get(key):
            self._queues.pop(key, None)
            self._running.pop(key, None)

    async def _call(self, key: Key, together: list[_Waiting[Row, Answer]]) -> None:
        try:
            await self._answer(key, together)
        finally:
            self._running[key] -= 1
            self._start(key)

    async def _answer(self, key: Key, together: list[_Waiting[Row, Answer]]) -> None:
        rows = [row for waiting in together for row in waiting.rows]
        left = max(waiting.deadline for waiting in together) - time.monotonic()
        try:
            answers = await self._ask(key, rows, max(0.001, left))
            if len(answers) != len(rows):
                raise ServerAnswerError(
                    "answers are missing", expected=str(len(rows)), got=str(len(answers))
                )
        except InputError as error:
            # One request's fault must not be the others'.
            if len(together) == 1:
                _fail(together, error)
                return
            for waiting in together:
                await self._answer(key, [waiting])
            return
        except BaseException as error:
            _fail(together, error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for waiting in together:
            end = start + len(waiting.rows)
            if not waiting.answers.done():
                waiting.answers.set_result(answers[start:end])
            start = end


def _fail(together: Sequence[_Waiting[Row, Answer]], error: BaseException) -> None:
    for waiting in together:
        if not waiting.answers.done():
            waiting.answers.set_exception(error)
