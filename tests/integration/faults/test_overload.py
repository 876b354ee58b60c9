"""Three times what the server can do: the accepted in time, the rest refused at once, then normal.

Open loop: requests are sent whether or not earlier ones were answered. The callers share the
machine with the server, so one ready-made message is sent again and again to the classifier, which
has no cache, and a request's time counts from when it was sent, not from when a starved caller
should have sent it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients._translate import translate
from tests.integration.faults.conftest import Promise
from tests.integration.faults.launched_server import Launched
from tests.integration.faults.retrying_load import percentile

SLO_SECONDS = 0.6
"""p99 of the default in loadtest/slo.toml."""
MODEL = "log_anomaly_classifier"
ROWS, TOKENS = 32, 64


@dataclass
class Answers:
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


class Asker:
    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        request = service_pb2.ModelInferRequest(model_name=MODEL)
        for name in ("input_ids", "attention_mask"):
            request.inputs.add(name=name, datatype="INT64", shape=[ROWS, TOKENS])
            request.raw_input_contents.append(np.ones((ROWS, TOKENS), dtype=np.int64).tobytes())
        self._message = request.SerializeToString()

    async def close(self) -> None:
        await self._channel.close()

    async def ask(self, answers: Answers) -> None:
        sent = time.monotonic()
        try:
            await self._call(self._message, timeout=60)
        except grpc.RpcError as error:
            answers.refused.append(time.monotonic() - sent)
            answers.kinds[_kind(error)] += 1
        else:
            answers.accepted.append(time.monotonic() - sent)

    async def closed_loop(self, callers: int, seconds: float) -> Answers:
        answers = Answers()
        until = time.monotonic() + seconds

        async def call() -> None:
            while time.monotonic() < until:
                await self.ask(answers)

        await asyncio.gather(*(call() for _ in range(callers)))
        return answers

    async def open_loop(self, rate: float, seconds: float) -> Answers:
        answers = Answers()
        started = time.monotonic()
        # Done ones go at once: tens of thousands kept would halt the caller in garbage collections.
        jobs: set[asyncio.Future[None]] = set()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            job = asyncio.ensure_future(self.ask(answers))
            jobs.add(job)
            job.add_done_callback(jobs.discard)
        await asyncio.gather(*jobs)
        return answers


def _kind(error: grpc.RpcError) -> str:
    """The class that a caller of `clients/` would get."""
    from tritonclient.utils import InferenceServerException

    raised = InferenceServerException(error.details(), status=str(error.code()))
    return type(translate(raised, model=MODEL, url="")).__name__


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.promise(
    fault="3× overload for 60 s",
    promise="accepted p99 ≤ 2× SLO, rest refused at once and typed; normal within 2 s after",
)
def test_overload_is_refused_not_queued(server: Launched, seconds: int, promise: Promise) -> None:
    state = server.state
    restarts = json.dumps([server.restarts(m) for m in ("tritonserver", MODEL)])

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
    p99 = percentile(flood.accepted, 0.99)
    refusal = percentile(flood.refused, 0.5) if flood.refused else 0.0
    calm = percentile(after.accepted, 0.99)
    total = len(flood.accepted) + len(flood.refused)
    promise.measured(
        f"{seconds} s at {3 * peak:.0f} requests/s: {len(flood.accepted):,} of"
        f" {total:,} accepted, p99 {p99 * 1000:.0f} ms; refused as {dict(flood.kinds)}, median"
        f" after {refusal * 1000:.0f} ms; 2 s later p99 {calm * 1000:.0f} ms, none refused"
    )
    assert set(flood.kinds) <= {"OverloadedError"}
    assert flood.refused, "not overloaded at all"
    assert p99 <= promise.limit_seconds(2 * SLO_SECONDS)
    assert refusal <= promise.limit_seconds(0.25)
    assert not after.refused
    assert calm <= promise.limit_seconds(SLO_SECONDS)
    now = json.dumps([server.restarts(m) for m in ("tritonserver", MODEL)])
    assert now == restarts, "overload was taken for death"
