"""Three times what the server can do: the accepted in time, the rest refused at once, then normal.

Open loop: requests are sent when they are due, whether or not earlier ones were answered.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import tritonclient.grpc.aio as triton

from clients._translate import translate
from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched
from tests.integration.faults.retrying_load import LINES, percentile

SLO_SECONDS = 0.6
"""p99 of the default in loadtest/slo.toml."""
BATCH = 32


@dataclass
class Answers:
    accepted: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


class Asker:
    """Batches of fresh lines: nothing is answered from the front's cache."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)
        self._count = 0

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, answers: Answers, due: float) -> None:
        rows = []
        for _ in range(BATCH):
            self._count += 1
            word = "".join(chr(97 + (self._count // 26**k) % 26) for k in range(5))
            rows.append([f"{word} {LINES[self._count % len(LINES)]}".encode()])
        tensor = triton_input(rows)
        try:
            await self._client.infer("log_anomaly", [tensor], client_timeout=60)
        except Exception as error:
            kind = type(translate(error, model="log_anomaly", url="")).__name__
            answers.kinds[kind] += 1
            answers.refused.append(time.monotonic() - due)
        else:
            answers.accepted.append((time.monotonic(), time.monotonic() - due))

    async def closed_loop(self, callers: int, seconds: float) -> Answers:
        answers = Answers()
        until = time.monotonic() + seconds

        async def call() -> None:
            while time.monotonic() < until:
                await self.ask(answers, time.monotonic())

        await asyncio.gather(*(call() for _ in range(callers)))
        return answers

    async def open_loop(self, rate: float, seconds: float) -> Answers:
        answers = Answers()
        started = time.monotonic()
        jobs = []
        for number in range(int(rate * seconds)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            jobs.append(asyncio.ensure_future(self.ask(answers, due)))
        await asyncio.gather(*jobs)
        return answers


def triton_input(rows: list[list[bytes]]) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(rows), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(rows, dtype=object))
    return tensor


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.promise(
    fault="3× overload for 60 s",
    promise="accepted p99 ≤ 2× SLO, rest refused at once and typed; normal within 2 s after",
)
def test_overload_is_refused_not_queued(server: Launched, seconds: int, promise: Promise) -> None:
    state = server.state
    restarts = json.dumps([server.restarts(m) for m in ("tritonserver", "log_anomaly")])

    async def play() -> tuple[float, Answers, Answers]:
        asker = Asker(state["grpc_url"])
        try:
            await asker.closed_loop(16, 1.0)
            peak = len((await asker.closed_loop(16, 3.0)).accepted) / 3.0
            flood = await asker.open_loop(3 * peak, seconds)
            await asyncio.sleep(2.0)
            after = await asker.open_loop(0.3 * peak, 3.0)
            return peak, flood, after
        finally:
            await asker.close()

    peak, flood, after = asyncio.run(play())
    p99 = percentile([taken for _, taken in flood.accepted], 0.99)
    refusal = percentile(flood.refused, 0.5) if flood.refused else 0.0
    calm = percentile([taken for _, taken in after.accepted], 0.99)
    total = len(flood.accepted) + len(flood.refused)
    promise.measured(
        f"{seconds} s at {3 * peak:.0f} requests/s of {BATCH} lines: {len(flood.accepted):,} of"
        f" {total:,} accepted, p99 {p99 * 1000:.0f} ms; refused as {dict(flood.kinds)}, median"
        f" after {refusal * 1000:.0f} ms; 2 s later p99 {calm * 1000:.0f} ms, none refused"
    )
    assert set(flood.kinds) <= {"OverloadedError"}
    assert flood.refused, "not overloaded at all"
    assert p99 <= promise.limit_seconds(2 * SLO_SECONDS)
    assert refusal <= promise.limit_seconds(0.25)
    assert not after.refused
    assert calm <= promise.limit_seconds(SLO_SECONDS)
    now = json.dumps([server.restarts(m) for m in ("tritonserver", "log_anomaly")])
    assert now == restarts, "overload was taken for death"
