"""What the three clients share: running many calls, in order, bounded, with retries and a deadline.

The logic of each model (plan the calls, decode the answers) is pure and written once; the sync
and async classes differ only in how the calls are run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from clients._translate import explain_unknown
from clients._transport import (
    DEFAULT_URL,
    INDEX_SECONDS,
    Answer,
    Call,
    make_async_transport,
    make_transport,
)
from clients.policy import CallPolicy, Deadline, deadline_error
from contract.errors import PresageError, UnknownModelError

T = TypeVar("T")


def _index_seconds(deadline: Deadline) -> float:
    return min(INDEX_SECONDS, max(0.01, deadline.seconds_left))


class SyncCaller:
    """Base of the sync clients. Close it, or use it in a ``with`` block.

    token: sent as a bearer token, for a server behind a proxy that asks for one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        policy: CallPolicy | None = None,
        *,
        token: str | None = None,
    ) -> None:
        self.policy = policy or CallPolicy()
        self._transport = make_transport(url, token)
        self._configs: dict[str, dict[str, Any]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._transport.close()

    def _config(self, model: str, deadline: Deadline | None = None) -> dict[str, Any]:
        if model not in self._configs:
            self._configs[model] = self._retry(
                model,
                deadline or self.policy.deadline(),
                lambda left: self._transport.config(model, left),
            )
        return self._configs[model]

    def _run(self, calls: Sequence[Call], deadline: Deadline | None = None) -> list[Answer]:
        """All answers, in order. The first error ends the rest. Raises PresageError.

        deadline: None is the policy's, from now.
        """
        until = deadline or self.policy.deadline()

        def run_one(call: Call) -> Answer:
            return self._retry(call.model, until, lambda left: self._transport.infer(call, left))

        if len(calls) <= 1:
            return [run_one(call) for call in calls]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.policy.in_flight, "presage-client")
        jobs = [self._pool.submit(run_one, call) for call in calls]
        try:
            return [job.result() for job in jobs]
        finally:
            for job in jobs:
                job.cancel()

    def _retry(self, model: str, deadline: Deadline, attempt_once: Callable[[float], T]) -> T:
        attempt = 0
        while True:
            left = deadline.seconds_left
            if left <= 0:
                raise deadline_error(model, deadline.seconds)
            try:
                return attempt_once(left)
            except PresageError as raised:
                error = raised
                if isinstance(raised, UnknownModelError):
                    error = self._explained(raised, model, deadline)
                left = deadline.seconds_left
                delay = self.policy.delay_after(attempt, error, left)
                if delay is None:
                    if error is raised:
                        raise
                    raise error from raised
                time.sleep(delay)
            attempt += 1

    def _explained(self, raised: UnknownModelError, model: str, deadline: Deadline) -> PresageError:
        """Why it is unknown; a server that does not tell any more is worth a retry, too."""
        try:
            index = self._transport.index(_index_seconds(deadline))
        except PresageError as silent:
            return silent
        return explain_unknown(raised, model, index)


class AsyncCaller:
    """Base of the async clients. Close it, or use it in an ``async with`` block."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        policy: CallPolicy | None = None,
        *,
        token: str | None = None,
    ) -> None:
        self.policy = policy or CallPolicy()
        self._url = url
        self._token = token
        self._lazy_transport: Any = None
        self._configs: dict[str, dict[str, Any]] = {}

    @property
    def _transport(self) -> Any:
        # Made inside the running loop, where grpc.aio and aiohttp want to be made.
        if self._lazy_transport is None:
            self._lazy_transport = make_async_transport(self._url, self._token)
        return self._lazy_transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._lazy_transport is not None:
            await self._lazy_transport.close()
            self._lazy_transport = None

    async def _config(self, model: str, deadline: Deadline | None = None) -> dict[str, Any]:
        if model not in self._configs:
            self._configs[model] = await self._retry(
                model,
                deadline or self.policy.deadline(),
                lambda left: self._transport.config(model, left),
            )
        return self._configs[model]

    async def _run(self, calls: Sequence[Call], deadline: Deadline | None = None) -> list[Answer]:
        """See SyncCaller._run."""
        until = deadline or self.policy.deadline()
        gate = asyncio.Semaphore(self.policy.in_flight)

        async def run_one(call: Call) -> Answer:
            async with gate:
                answer: Answer = await self._retry(
                    call.model, until, lambda left: self._transport.infer(call, left)
                )
                return answer

        tasks = [asyncio.ensure_future(run_one(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _retry(
        self, model: str, deadline: Deadline, attempt_once: Callable[[float], Awaitable[T]]
    ) -> T:
        attempt = 0
        while True:
            left = deadline.seconds_left
            if left <= 0:
                raise deadline_error(model, deadline.seconds)
            try:
                return await attempt_once(left)
            except PresageError as raised:
                error = raised
                if isinstance(raised, UnknownModelError):
                    error = await self._explained(raised, model, deadline)
                left = deadline.seconds_left
                delay = self.policy.delay_after(attempt, error, left)
                if delay is None:
                    if error is raised:
                        raise
                    raise error from raised
                await asyncio.sleep(delay)
            attempt += 1

    async def _explained(
        self, raised: UnknownModelError, model: str, deadline: Deadline
    ) -> PresageError:
        """See SyncCaller._explained."""
        try:
            index = await self._transport.index(_index_seconds(deadline))
        except PresageError as silent:
            return silent
        return explain_unknown(raised, model, index)
