"""Latency and throughput of served models beside eager PyTorch, in one interleaved run.

Every model is measured in rounds: Triton alone, eager alone, Triton with many callers, eager with
many; medians over the rounds. Whatever disturbs the machine then disturbs both alike.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc as triton

from contract.errors import ServerAnswerError
from loadtest.eager_process import EagerProcess
from loadtest.infer_message import TYPES
from loadtest.served import Arrays, Questions, ServedModel

CONCURRENCY = 8
ROUNDS = 5
_WARM_UP_REQUESTS = 5
_DEADLINE_SECONDS = 60.0


class Caller(Protocol):
    """Sends one request and waits for its answer. Raises on any failure."""

    def __call__(self, inputs: Arrays) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Side:
    """p50/p99 at concurrency 1 over all rounds' requests; rate at ``concurrency``, median."""

    p50_milliseconds: float
    p99_milliseconds: float
    requests_per_second: float
    requests: int


@dataclass(frozen=True)
class Measurement:
    """One model through Triton and eagerly; ``threads``: torch's best, alone and with many."""

    model: str
    triton: Side
    eager: Side
    rounds: int
    concurrency: int
    threads: tuple[int, int]

    @property
    def latency_ratio(self) -> float:
        """How many times sooner Triton answers a single caller (median)."""
        return self.eager.p50_milliseconds / self.triton.p50_milliseconds

    @property
    def throughput_ratio(self) -> float:
        """How many times more requests Triton answers for many callers."""
        return self.triton.requests_per_second / self.eager.requests_per_second


class TritonCaller:
    """One gRPC channel; for one thread."""

    def __init__(self, grpc_address: str, model: ServedModel) -> None:
        self._client: Any = triton.InferenceServerClient(grpc_address)
        self._model = model
        self._outputs = [triton.InferRequestedOutput(name) for name in model.outputs]

    def __call__(self, inputs: Arrays) -> None:
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), TYPES[str(array.dtype)])
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        try:
            self._client.infer(
                self._model.name,
                tensors,
                model_version=str(self._model.version),
                outputs=self._outputs,
                client_timeout=_DEADLINE_SECONDS,
            )
        except triton.InferenceServerException as error:
            raise ServerAnswerError(
                f"{self._model.name}: a measured request failed", got=str(error)
            ) from error

    def close(self) -> None:
        self._client.close()


def measure(
    model: ServedModel,
    grpc_address: str,
    eager: EagerProcess,
    *,
    seconds: float = 6.0,
    rounds: int = ROUNDS,
    concurrency: int = CONCURRENCY,
    step_done: Callable[[], object] = lambda: None,
) -> Measurement:
    """Measure one model for about ``seconds`` in all; every text is new, so no cache helps.

    Raises:
        ServerAnswerError: a request failed.
    """
    questions = Questions(model, fresh=True, seed=time.monotonic_ns())
    slot = seconds / (rounds * 4 + 4)
    one_triton = _Bench(lambda: TritonCaller(grpc_address, model), 1, questions)
    many_triton = _Bench(lambda: TritonCaller(grpc_address, model), concurrency, questions)
    one_eager = _Bench(lambda: eager.caller(model.name), 1, questions)
    many_eager = _Bench(lambda: eager.caller(model.name), concurrency, questions)
    benches = (one_triton, one_eager, many_triton, many_eager)
    try:
        for bench in benches:
            bench.warm_up()
        threads = (
            _best_threads(
                one_eager, eager, slot, lambda latencies, _: -float(np.median(latencies))
            ),
            _best_threads(many_eager, eager, slot, lambda _, rate: rate),
        )
        step_done()
        latencies: dict[_Bench, list[float]] = {bench: [] for bench in benches}
        rates: dict[_Bench, list[float]] = {bench: [] for bench in benches}
        for _ in range(rounds):
            for bench in benches:
                if bench is one_eager:
                    eager.set_threads(threads[0])
                elif bench is many_eager:
                    eager.set_threads(threads[1])
                taken, rate = bench.run(slot)
                latencies[bench] += taken
                rates[bench].append(rate)
            step_done()
    finally:
        for bench in benches:
            bench.close()
    return Measurement(
        model=model.name,
        triton=_side(latencies[one_triton], rates[many_triton]),
        eager=_side(latencies[one_eager], rates[many_eager]),
        rounds=rounds,
        concurrency=concurrency,
        threads=threads,
    )


def _side(seconds: list[float], rates: list[float]) -> Side:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    return Side(float(p50), float(p99), float(np.median(rates)), len(seconds))


def _best_threads(
    bench: _Bench,
    eager: EagerProcess,
    seconds: float,
    score: Callable[[list[float], float], float],
) -> int:
    """One thread or all cores, whichever serves the baseline better: it gets its best."""
    candidates = sorted({1, len(os.sched_getaffinity(0))})
    if len(candidates) == 1:
        return candidates[0]
    scores = {}
    for count in candidates:
        eager.set_threads(count)
        bench.warm_up()
        scores[count] = score(*bench.run(seconds))
    return max(scores, key=scores.__getitem__)


class _Bench:
    """A fixed number of callers that ask as fast as they are answered."""

    def __init__(
        self, make_caller: Callable[[], Caller], concurrency: int, questions: Iterator[Arrays]
    ) -> None:
        self._callers = [make_caller() for _ in range(concurrency)]
        self._questions = questions

    def warm_up(self) -> None:
        for caller in self._callers:
            for _ in range(max(1, _WARM_UP_REQUESTS // len(self._callers))):
                caller(next(self._questions))

    def run(self, seconds: float) -> tuple[list[float], float]:
        """Latencies in seconds of every request begun in time, and requests per second."""
        failures: list[BaseException] = []
        taken: list[float] = []
        started = time.perf_counter()
        deadline = started + seconds

        def ask(caller: Caller) -> None:
            own: list[float] = []
            try:
                # One request at least: a slot may be shorter than a long log takes.
                while not own or time.perf_counter() < deadline:
                    inputs = next(self._questions)
                    begun = time.perf_counter()
                    caller(inputs)
                    own.append(time.perf_counter() - begun)
            except BaseException as error:
                failures.append(error)
            taken.extend(own)

        threads = [threading.Thread(target=ask, args=(caller,)) for caller in self._callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return taken, len(taken) / (time.perf_counter() - started)

    def close(self) -> None:
        for caller in self._callers:
            caller.close()
