"""Batching: exact, bounded, and never a wait for company."""

from __future__ import annotations

import asyncio

import pytest

from contract.errors import (
    DeadlineExceededError,
    InputError,
    OverloadedError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.gateway.batching import Batcher


class Model:
    """Answers ``key + row``; each call waits for ``gate`` where there is one."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.deadlines: list[float] = []
        self.gate: asyncio.Event | None = None
        self.bad = -1
        self.error: Exception | None = None

    async def __call__(self, key: str, rows: list[int], deadline: float) -> list[str]:
        self.calls.append(rows)
        self.deadlines.append(deadline)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.bad in rows:
            raise InputError("bad row")
        return [f"{key}{row}" for row in rows]


def batcher(model: Model, **limits: int) -> Batcher[str, int, str]:
    limits = {"calls_in_flight": 1, "batch_rows": 8, "queue_rows": 100, **limits}
    return Batcher(model, **limits)


async def test_one_that_finds_the_model_idle_is_asked_at_once() -> None:
    model = Model()
    assert await batcher(model)("k", [1, 2], 5) == ["k1", "k2"]
    assert model.calls == [[1, 2]]
    assert 4 < model.deadlines[0] <= 5


async def test_those_that_come_meanwhile_go_together_and_get_their_own() -> None:
    model = Model()
    model.gate = asyncio.Event()
    batch = batcher(model)
    first = asyncio.create_task(batch("k", [0], 5))
    while not model.calls:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(batch("k", [i, i + 100], 5)) for i in range(1, 6)]
    await asyncio.sleep(0)
    model.gate.set()
    assert await first == ["k0"]
    assert await asyncio.gather(*rest) == [[f"k{i}", f"k{i + 100}"] for i in range(1, 6)]
    assert [len(call) for call in model.calls] == [1, 8, 2]


async def test_keys_do_not_mix_and_a_large_request_is_not_cut() -> None:
    model = Model()
    batch = batcher(model)
    answers = await asyncio.gather(batch("a", [1], 5), batch("b", [2], 5), batch("a", [3] * 20, 5))
    assert answers == [["a1"], ["b2"], ["a3"] * 20]
    assert sorted(map(len, model.calls)) == [1, 1, 20]
    assert not batch._queues
    assert not batch._running
    assert batch.queued_rows == 0


async def test_a_bad_request_does_not_lose_the_others() -> None:
    model = Model()
    model.bad = 2
    batch = batcher(model)
    answers = await asyncio.gather(*(batch("k", [i], 5) for i in (1, 2, 3)), return_exceptions=True)
    assert answers[0] == ["k1"]
    assert isinstance(answers[1], InputError)
    assert answers[2] == ["k3"]


async def test_a_failing_model_fails_all_and_is_asked_again_later() -> None:
    model = Model()
    model.error = ServerUnavailableError("away")
    batch = batcher(model)
    failed = await asyncio.gather(*(batch("k", [i], 5) for i in range(3)), return_exceptions=True)
    assert all(isinstance(error, ServerUnavailableError) for error in failed)
    model.error = None
    assert await batch("k", [1], 5) == ["k1"]


async def test_the_queue_is_bounded() -> None:
    model = Model()
    model.gate = asyncio.Event()
    batch = batcher(model, queue_rows=4)
    waiting = [asyncio.create_task(batch("k", [i], 5)) for i in range(4)]
    while not model.calls:
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batch("other", [1, 2, 3, 4, 5], 5)
    model.gate.set()
    await asyncio.gather(*waiting)
    assert await batch("k", [1, 2, 3], 5) == ["k1", "k2", "k3"]


async def test_who_gave_up_is_not_asked_for() -> None:
    model = Model()
    model.gate = asyncio.Event()
    batch = batcher(model)
    first = asyncio.create_task(batch("k", [0], 5))
    while not model.calls:
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceededError):
        await batch("k", [1], 0.01)
    model.gate.set()
    await first
    assert await batch("k", [2], 5) == ["k2"]
    assert model.calls == [[0], [2]]


async def test_missing_answers_are_an_error() -> None:
    async def short(key: str, rows: list[int], deadline: float) -> list[str]:
        return ["one"]

    batch: Batcher[str, int, str] = Batcher(short, calls_in_flight=1, batch_rows=8, queue_rows=100)
    with pytest.raises(ServerAnswerError):
        await batch("k", [1, 2], 5)
