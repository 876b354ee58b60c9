"""Single figures of ``compare``: start, first request, large batches, growth, matmul share."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from clients import CallPolicy, LogAnomalyClient, MetricForecastClient, TrainFailureRCAClient
from contract.errors import PresageError
from loadtest.log_mix import LETTERS, job_logs, new_logs
from loadtest.served import Arrays, Questions, ServedModel, text_of
from loadtest.speed.check import ask
from loadtest.speed.growth import LINEAR_UP_TO, Growth, fit_growth
from loadtest.speed.grpc_load import LIVE, GrpcLoad
from loadtest.speed.infer_message import infer_message
from loadtest.speed.presage_server import PresageServer
from loadtest.speed.side import InProcessSide, OnnxSession, PresageSide

READY_SECONDS = 15.0
FIRST_REQUEST_RATIO = 2.0
BATCH_ROWS = 256
BATCH_SHARE = 0.9
SERIES, SERIES_SECONDS = 100_000, 60.0
MATMUL_SHARE = 0.6
_MATMUL_SIZE = 2048
_STEADY_REQUESTS = 200
_BATCH_CALLERS = 4
_LENGTH = 32
_BATCH = 8
_POLICY = CallPolicy(deadline_seconds=600.0)


@dataclass(frozen=True)
class Fact:
    """One row. value: for a program; told, target, verdict, how: for a reader."""

    what: str
    value: float
    told: str
    target: str = ""
    verdict: str = ""
    how: str = ""


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def not_measured(what: str, error: PresageError) -> Fact:
    return Fact(what, float("nan"), "not measured", how=str(error)[:200])


def start_facts(server: PresageServer, served: dict[str, ServedModel]) -> Iterator[Fact]:
    """Of a server that nobody has asked anything yet but its own canaries."""
    yield Fact(
        "server ready, all models of model_repository",
        server.ready_seconds,
        f"{server.ready_seconds:.1f} s",
        f"≤ {READY_SECONDS:g} s",
        _verdict(server.ready_seconds <= READY_SECONDS),
        "from its start until every model answered its canary",
    )
    for name, model in served.items():
        client: Any = triton.InferenceServerClient(server.grpc_address)
        try:
            client.is_server_live()  # the connection is the client's affair
            asked = Questions(model, fresh=True)
            seconds = []
            for inputs in itertools.islice(asked, _STEADY_REQUESTS + 1):
                begun = time.perf_counter()
                ask(client, name, inputs, model.outputs)
                seconds.append(time.perf_counter() - begun)
                if sum(seconds) > 20 and len(seconds) > 20:
                    break
        finally:
            client.close()
        first, p99 = seconds[0], float(np.quantile(seconds[1:], 0.99))
        yield Fact(
            f"{name}: first request after ready",
            first / p99,
            f"{1000 * first:.1f} ms, {first / p99:.2f} × steady p99 ({1000 * p99:.1f} ms)",
            f"≤ {FIRST_REQUEST_RATIO:g} ×",
            _verdict(first <= FIRST_REQUEST_RATIO * p99),
            f"one caller, {len(seconds) - 1} requests after it",
        )


def ceiling_fact(server: PresageServer, seconds: float) -> Fact:
    """How fast the load generator is where the server has nothing to compute."""
    load = GrpcLoad(server.grpc_address, itertools.repeat(b""), 64, method=LIVE)
    load.run(0.5)
    _, rate = load.run(seconds)
    each = 1e6 * load.cpu_seconds / load.answered
    return Fact(
        "load generator's own ceiling",
        rate,
        f"{rate:,.0f} requests/s, {each:.0f} µs of CPU each",
        how="64 callers ask ServerLive: gRPC and no model",
    )


def batch_fact(
    model: ServedModel, server: PresageServer, onnx_file: Path, *, rounds: int, seconds: float
) -> Fact:
    """Rows a second of requests of 256 rows, against the same file in this process."""
    golden = model.artifact.golden()
    rows = min(BATCH_ROWS, model.manifest.graph.max_batch_size)
    names = [tensor.name for tensor in model.inputs]
    batch = {name: np.resize(golden[name], (rows, *golden[name].shape[1:])) for name in names}
    message = infer_message(model.name, batch, model.outputs)
    wire = PresageSide(
        "wire", "none", server, model.name, itertools.repeat(message), _BATCH_CALLERS, rows=rows
    )
    bound = InProcessSide(
        "in process",
        OnnxSession(str(onnx_file)),
        itertools.repeat((batch, rows)),
        threads=len(os.sched_getaffinity(0)),
    )
    for side in (wire, bound):
        side.warm_up(seconds / 2)
    for _ in range(rounds):
        wire.run(seconds)
        bound.run(seconds)
    shares = [ours / own for ours, own in zip(wire.rounds.rates, bound.rounds.rates, strict=True)]
    share = median(shares)
    cpu = wire.rounds.cpu_seconds
    spent = ", ".join(f"{who} {1e6 * part / wire.rounds.rows:.0f}" for who, part in cpu.items())
    own_cpu = 1e6 * bound.rounds.cpu_seconds["in process"] / bound.rounds.rows
    return Fact(
        f"{model.name}: {rows} series a request, share of ONNX Runtime in process",
        share,
        f"{share:.0%} ({min(shares):.0%}–{max(shares):.0%}), "
        f"{median(wire.rounds.rates):,.0f} series/s",
        f"≥ {BATCH_SHARE:.0%}" if rows == BATCH_ROWS else "",
        _verdict(share >= BATCH_SHARE) if rows == BATCH_ROWS else "",
        f"µs of CPU a series: {spent}; in process {own_cpu:.0f} "
        f"(one thread a core, inputs and outputs bound)",
    )


def series_fact(server: PresageServer, preset: str, context_length: int, count: int) -> Fact:
    """So many series through the client library, once. Raises ServerError."""
    series = _series(count, context_length)
    with MetricForecastClient(f"grpc://{server.grpc_address}", _POLICY) as client:
        begun = time.perf_counter()
        client.forecast(series, step_seconds=300, preset=preset)
        seconds = time.perf_counter() - begun
    target = count == SERIES
    return Fact(
        f"{count:,} series through metric_forecast_{preset}",
        seconds,
        f"{seconds:.1f} s, {count / seconds:,.0f} series/s",
        f"< {SERIES_SECONDS:g} s" if target else "",
        _verdict(seconds < SERIES_SECONDS) if target else "",
        f"{context_length} points each, one client",
    )


def growth_facts(
    server: PresageServer, served: dict[str, ServedModel], *, rounds: int
) -> Iterator[Fact]:
    """Exponents of cost in lines, in series, in the length of a job's log."""
    url = f"grpc://{server.grpc_address}"
    if "log_anomaly" in served:
        golden = [text_of(question) for question in served["log_anomaly"].questions]
        stream = _new_lines(golden)
        with LogAnomalyClient(url, _POLICY) as lines:
            yield _growth_fact(
                grow(
                    "log lines, all new",
                    (64, 128, 256, 512),
                    lambda size: list(itertools.islice(stream, size)),
                    lines.classify,
                    rounds,
                )
            )
    if "metric_forecast_fleet" in served:
        length = served["metric_forecast_fleet"].inputs[0].dims[0]
        with MetricForecastClient(url, _POLICY) as forecasts:
            yield _growth_fact(
                grow(
                    "series",
                    (500, 1_000, 2_000, 4_000),
                    lambda size: _series(size, length),
                    lambda rows: forecasts.forecast(rows, step_seconds=300, preset="fleet"),
                    rounds,
                )
            )
    if "train_failure_rca" in served:
        texts = [text_of(question) for question in served["train_failure_rca"].questions]
        streams = {
            size: new_logs(job_logs(texts[:1], size), seed=size) for size in (50, 100, 200, 400)
        }
        with TrainFailureRCAClient(url, _POLICY) as logs:
            yield _growth_fact(
                grow(
                    "lines of one job log, all new",
                    tuple(streams),
                    lambda size: next(streams[size]).decode(),
                    lambda log: logs.diagnose([log]),
                    rounds,
                )
            )


def grow(
    of: str,
    sizes: tuple[int, ...],
    make: Callable[[int], Any],
    call: Callable[[Any], object],
    rounds: int,
) -> Growth:
    """Median seconds of each size, rounds interleaved; the first round does not count."""
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(rounds + 1):
        for size in sizes:
            asked = make(size)
            begun = time.perf_counter()
            call(asked)
            if number:
                taken[size].append(time.perf_counter() - begun)
    return fit_growth(of, sizes, [median(taken[size]) for size in sizes])


def _growth_fact(growth: Growth) -> Fact:
    seconds = ", ".join(
        f"{size:,}: {1000 * taken:,.0f} ms"
        for size, taken in zip(growth.sizes, growth.seconds, strict=True)
    )
    return Fact(
        f"cost grows with {growth.of}",
        growth.exponent,
        f"as size^{growth.exponent:.2f}",
        f"≤ {LINEAR_UP_TO:g} (linear)",
        _verdict(growth.linear),
        seconds,
    )


def matmul_facts(
    model: ServedModel, server: PresageServer, *, rounds: int, seconds: float, precision: str
) -> Iterator[Fact]:
    """What share of this machine's matmul rate a served classifier reaches at batch 8 × 32."""
    config = model.artifact.path / "config.json"
    flops_per_row = matmul_flops(config, _LENGTH)
    graph = model.manifest.graph
    vocabulary = int(model.artifact.golden()["input_ids"].max())
    draw = np.random.default_rng(0)
    inputs: Arrays = {
        "input_ids": draw.integers(5, vocabulary, (_BATCH, _LENGTH), dtype=np.int64),
        "attention_mask": np.ones((_BATCH, _LENGTH), dtype=np.int64),
    }
    message = infer_message(graph.triton_name, inputs, [graph.outputs[0].name])
    load = GrpcLoad(server.grpc_address, itertools.repeat(message), _BATCH_CALLERS)
    load.run(seconds)
    ceilings, rates = [], []
    for _ in range(rounds):
        ceilings.append(matmul_rate("bfloat16" if precision != "fp32" else "float32", seconds / 2))
        rates.append(load.run(seconds)[1] * _BATCH * flops_per_row)
    shares = [rate / ceiling for rate, ceiling in zip(rates, ceilings, strict=True)]
    yield Fact(
        f"matmul share, BERT-base {_BATCH} × {_LENGTH}, {precision}, served",
        median(shares),
        f"{median(shares):.0%} ({min(shares):.0%}–{max(shares):.0%}) of "
        f"{median(ceilings) / 1e9:,.0f} GFLOP/s",
        f"≥ {MATMUL_SHARE:.0%}",
        _verdict(median(shares) >= MATMUL_SHARE),
        f"{median(rates) / 1e9:,.0f} GFLOP/s over gRPC, {_BATCH_CALLERS} callers; ceiling: torch, "
        f"{_MATMUL_SIZE}³, all cores, same rounds",
    )


def matmul_rate(dtype: str, seconds: float) -> float:
    """FLOP/s of large square matmuls in torch on all cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        left = torch.randn(_MATMUL_SIZE, _MATMUL_SIZE).to(getattr(torch, dtype))
        right = torch.randn(_MATMUL_SIZE, _MATMUL_SIZE).to(getattr(torch, dtype))
        left @ right
        done, begun = 0, time.perf_counter()
        while not done or time.perf_counter() < begun + seconds:
            left @ right
            done += 1
        return float(done * 2 * _MATMUL_SIZE**3 / (time.perf_counter() - begun))
    finally:
        torch.set_num_threads(threads)


def matmul_flops(config: Path, length: int) -> float:
    """Of one row's matrix products in a BERT encoder: projections, scores, and feed-forward."""
    import json

    settings = json.loads(config.read_text(encoding="utf-8"))
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    each = 4 * hidden * hidden + 2 * hidden * inner + 2 * length * hidden
    return float(2 * settings["num_hidden_layers"] * length * each)


def _series(count: int, length: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    day = 50 + 20 * np.sin(np.arange(length) / 288 * 2 * np.pi)
    return list((day + draw.normal(0, 3, (count, length))).astype(np.float32))


def _new_lines(lines: list[str]) -> Iterator[str]:
    draw = np.random.default_rng(time.monotonic_ns())
    letters = np.array(list(LETTERS))
    for line in itertools.cycle(lines):
        yield "".join(draw.choice(letters, 9)) + " " + line
