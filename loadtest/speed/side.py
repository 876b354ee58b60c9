"""The sides of a comparison: each answers the same questions its own way, for some seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from loadtest.eager_process import EagerProcess
from loadtest.http_load import HttpLoad
from loadtest.speed.grpc_load import GrpcLoad
from loadtest.speed.presage_server import ModelCounts, PresageServer
from loadtest.speed.process_cpu import ProcessCpu

# "off", "on", "on, all seen", or "none": there is no cache to switch off.
Caches = str


@dataclass
class Rounds:
    """What one side did: rows a second of each round, and the seconds of all its requests.

    cpu_seconds: {who: CPU seconds}; split: what else tells where the time went.
    """

    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    rows: int = 0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)

    def add(self, rows: int, seconds: float, latencies: list[float]) -> None:
        self.rates.append(rows / seconds)
        self.latencies += latencies
        self.rows += rows

    def spend(self, seconds: dict[str, float]) -> None:
        for who, spent in seconds.items():
            self.cpu_seconds[who] = self.cpu_seconds.get(who, 0.0) + spent

    def count(self, **amounts: float) -> None:
        for what, amount in amounts.items():
            self.split[what] = self.split.get(what, 0.0) + amount


class Side(Protocol):
    """``run`` asks for about so many seconds and notes what it did in ``rounds``."""

    name: str
    caches: Caches
    rounds: Rounds

    def warm_up(self, seconds: float) -> None: ...
    def run(self, seconds: float) -> None: ...


class EagerSide:
    """Requests over HTTP to the baseline's process; each request holds ``rows``."""

    caches: Caches = "none"

    def __init__(
        self,
        name: str,
        process: EagerProcess,
        requests: Iterator[bytes],
        concurrency: int,
        *,
        rows: int = 1,
    ) -> None:
        self.name = name
        self.rounds = Rounds()
        self._process = process
        self._rows = rows
        self._load = HttpLoad(process.port, requests, concurrency)

    def warm_up(self, seconds: float) -> None:
        self._load.run(seconds)

    def rate(self, seconds: float) -> float:
        return self._load.run(seconds)[1]

    def run(self, seconds: float) -> None:
        cpu = ProcessCpu(self._process.pid)
        before = time.process_time()
        taken, rate = self._load.run(seconds)
        self.rounds.add(len(taken) * self._rows, len(taken) / rate, taken)
        self.rounds.spend(
            {"callers": time.process_time() - before, "baseline": sum(cpu.since().values())}
        )


class PresageSide:
    """Requests over gRPC to a front or a graph of a running server; each holds ``rows``."""

    def __init__(
        self,
        name: str,
        caches: Caches,
        server: PresageServer,
        model: str,
        requests: Iterator[bytes],
        concurrency: int,
        *,
        rows: int = 1,
        reads_text: bool = False,
    ) -> None:
        self.name = name
        self.caches = caches
        self.rounds = Rounds()
        self.server = server
        self.model = model
        self._rows = rows
        self._reads_text = reads_text
        self._load = GrpcLoad(server.grpc_address, requests, concurrency)

    def warm_up(self, seconds: float) -> None:
        self._load.run(seconds)

    def run(self, seconds: float) -> None:
        counts, texts = self._counts()
        cpu = self.server.cpu()
        before = time.process_time()
        taken, rate = self._load.run(seconds)
        callers = time.process_time() - before
        spent = cpu.since()
        now, texts_now = self._counts()
        self.rounds.add(len(taken) * self._rows, len(taken) / rate, taken)
        self.rounds.spend({"callers": callers, **spent})
        self.rounds.count(
            requests=now.requests - counts.requests,
            executions=now.executions - counts.executions,
            queue_seconds=now.queue_seconds - counts.queue_seconds,
            compute_seconds=now.compute_seconds - counts.compute_seconds,
            **{what: total - texts.get(what, 0.0) for what, total in texts_now.items()},
        )

    def _counts(self) -> tuple[ModelCounts, dict[str, float]]:
        texts = self.server.text_counters(self.model) if self._reads_text else {}
        return self.server.statistics(self.model), texts


class InProcessSide:
    """``answer(batch)`` called here by ``threads`` threads: no server between.

    ``batches``: what it is called with, and how many rows that is.
    """

    caches: Caches = "off"

    def __init__(
        self,
        name: str,
        answer: Callable[[Any], object],
        batches: Iterator[tuple[Any, int]],
        *,
        threads: int,
    ) -> None:
        self.name = name
        self.rounds = Rounds()
        self._answer = answer
        self._batches = batches
        self._threads = threads
        self._lock = threading.Lock()

    def warm_up(self, seconds: float) -> None:
        self._ask(seconds)

    def run(self, seconds: float) -> None:
        before = time.process_time()
        self.rounds.add(*self._ask(seconds))
        self.rounds.spend({"in process": time.process_time() - before})

    def _ask(self, seconds: float) -> tuple[int, float, list[float]]:
        begun = time.perf_counter()
        latencies: list[float] = []

        def ask(_: int) -> int:
            done = 0
            while not done or time.perf_counter() < begun + seconds:
                with self._lock:
                    batch, rows = next(self._batches)
                asked = time.perf_counter()
                self._answer(batch)
                latencies.append(time.perf_counter() - asked)
                done += rows
            return done

        with ThreadPoolExecutor(self._threads) as pool:
            rows = sum(pool.map(ask, range(self._threads)))
        return rows, time.perf_counter() - begun, latencies


class OnnxSession:
    """One file in ONNX Runtime, one thread a call, inputs and outputs bound: callable by many.

    Raises whatever onnxruntime raises for a file it cannot load.
    """

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        outputs: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return outputs
