"""How fast the gateway is: against eager PyTorch behind FastAPI, and against Triton asked directly.

One interleaved run: in each round every side is measured once, so that whatever disturbs the
machine disturbs all alike. Every text is new, so that no cache answers it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from contract.errors import ArtifactMissingError, ServerSetupError
from loadtest.eager_process import EagerCaller, EagerProcess
from loadtest.hardware import hardware
from loadtest.http_load import HttpLoad, http_request
from loadtest.measure import TritonCaller
from loadtest.served import Arrays, Questions, ServedModel, served_models

_START_SECONDS = 60.0
_WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Question:
    """One of the issue's targets: requests to an API's /predict, by this many callers at a time."""

    api: str
    model: str
    field: str
    concurrency: int
    target_ratio: float


QUESTIONS = (
    Question("metric_forecast", "metric_forecast_next", "series", 32, 4.0),
    Question("log_anomaly", "log_anomaly", "text", 64, 6.0),
)
TARGET_ADDED_MILLISECONDS = 1.5


@dataclass(frozen=True)
class GatewaySettings:
    url: str
    repository: Path
    artifacts: Path
    rounds: int = 5
    seconds: float = 3.0


@dataclass(frozen=True)
class GatewayRow:
    """Requests a second of many callers and milliseconds of one, medians over the rounds.

    added: gateway's median minus direct's, of each round. threads: torch's best for many callers.
    """

    question: Question
    gateway_rate: float
    eager_rate: float
    ratios: tuple[float, ...]
    gateway_milliseconds: float
    direct_milliseconds: float
    added: tuple[float, ...]
    threads: int

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def added_milliseconds(self) -> float:
        return median(self.added)


def measure_gateway(settings: GatewaySettings) -> list[GatewayRow]:
    """Raises ArtifactMissingError, ServerSetupError (gateway or baseline), ServerAnswerError."""
    served = {model.name: model for model in served_models(settings.repository, settings.artifacts)}
    missing = [question.model for question in QUESTIONS if question.model not in served]
    if missing:
        raise ArtifactMissingError(
            f"not published: {', '.join(missing)}",
            where=str(settings.repository),
            next_command="publish them: python -m export all",
        )
    with (
        gateway(settings.url, settings.repository) as ports,
        EagerProcess(settings.repository, settings.artifacts) as eager,
    ):
        return [
            _measure(question, served[question.model], ports[question.api], eager, settings)
            for question in QUESTIONS
        ]


@contextlib.contextmanager
def gateway(url: str, repository: Path) -> Iterator[dict[str, int]]:
    """All APIs in one process, as `make up` starts them; their ports. Raises ServerSetupError."""
    flags = [f"--{api.replace('_', '-')}-port=0" for api in _apis()]
    with tempfile.TemporaryFile() as problems:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "services", "gateway", "all", "--no-tokens"),
                *(f"--url={url}", f"--repository={repository.absolute()}"),
                *flags,
            ],
            cwd=Path(__file__).parent.parent.parent,
            stdout=subprocess.DEVNULL,
            stderr=problems,
            env={k: v for k, v in os.environ.items() if not k.startswith("PRESAGE_")},
        )
        try:
            yield _listening(process, problems)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _apis() -> tuple[str, ...]:
    return ("metric_forecast", "log_anomaly", "train_failure_rca")


def _listening(process: subprocess.Popen[bytes], problems: Any) -> dict[str, int]:
    deadline = time.monotonic() + _START_SECONDS
    text = ""
    while process.poll() is None and time.monotonic() < deadline:
        problems.seek(0)
        text = problems.read().decode("utf-8", "replace")
        found = dict(re.findall(r"^gateway: (\w+) http://[\d.]+:(\d+)$", text, re.MULTILINE))
        if len(found) == len(_apis()):
            return {api: int(port) for api, port in found.items()}
        time.sleep(0.1)
    lines = text.strip().splitlines()
    raise ServerSetupError("the gateway did not start", got=lines[-1] if lines else "no output")


def _measure(
    question: Question,
    model: ServedModel,
    port: int,
    eager: EagerProcess,
    settings: GatewaySettings,
) -> GatewayRow:
    questions = Questions(model, fresh=True, seed=time.monotonic_ns())
    through = (http_request("/predict", _body(question, row)) for row in questions)
    eagerly = (
        http_request(f"/predict/{question.model}", EagerCaller.body(row)) for row in questions
    )
    one = HttpLoad(port, through, 1)
    many = HttpLoad(port, through, question.concurrency)
    baseline = HttpLoad(eager.port, eagerly, question.concurrency)
    direct = TritonCaller(settings.url.removeprefix("grpc://"), model)
    try:
        for load in (one, many, baseline):
            load.run(_WARM_UP_SECONDS)
        _ask_directly(direct, questions, _WARM_UP_SECONDS)
        threads = _best_threads(eager, baseline, settings.seconds / 2)
        rates: list[tuple[float, float]] = []
        delays: list[tuple[float, float]] = []
        for _ in range(settings.rounds):
            directly = _ask_directly(direct, questions, settings.seconds / 2)
            taken, _ = one.run(settings.seconds / 2)
            delays.append((median(taken), directly))
            _, rate = many.run(settings.seconds)
            _, eager_rate = baseline.run(settings.seconds)
            rates.append((rate, eager_rate))
    finally:
        direct.close()
    return GatewayRow(
        question,
        gateway_rate=median(rate for rate, _ in rates),
        eager_rate=median(rate for _, rate in rates),
        ratios=tuple(ours / theirs for ours, theirs in rates),
        gateway_milliseconds=1000 * median(ours for ours, _ in delays),
        direct_milliseconds=1000 * median(theirs for _, theirs in delays),
        added=tuple(1000 * (ours - theirs) for ours, theirs in delays),
        threads=threads,
    )


def _body(question: Question, row: Arrays) -> bytes:
    """The seed's request of the same question that the others are asked."""
    if question.field == "text":
        return json.dumps({"text": row["text"].reshape(-1)[0].decode()}).encode()
    values = row["series"].reshape(-1).astype(np.float64)
    numbers = [None if np.isnan(value) else value for value in values.tolist()]
    return json.dumps({"series": numbers}).encode()


def _ask_directly(direct: TritonCaller, questions: Questions, seconds: float) -> float:
    """Median seconds of one caller over gRPC."""
    taken = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        inputs = next(questions)
        begun = time.perf_counter()
        direct(inputs)
        taken.append(time.perf_counter() - begun)
    return median(taken)


def _best_threads(eager: EagerProcess, baseline: HttpLoad, seconds: float) -> int:
    """One thread or all cores, whichever serves the baseline better: it gets its best."""
    rates = {}
    for count in sorted({1, len(os.sched_getaffinity(0))}):
        eager.set_threads(count)
        baseline.run(_WARM_UP_SECONDS)
        rates[count] = baseline.run(seconds)[1]
    best = max(rates, key=rates.__getitem__)
    eager.set_threads(best)
    return best


def gateway_table(rows: list[GatewayRow], settings: GatewaySettings) -> str:
    """Markdown."""
    lines = [
        f"`python -m loadtest gateway`, {settings.rounds} interleaved rounds of "
        f"{settings.seconds:g} s, medians (lowest–highest); {hardware()}; every text new. The "
        "callers, the gateway, Triton and the baseline share the machine.",
        "",
        "| requests to /predict | callers | gateway, 1/s | eager, 1/s (torch threads) | × eager "
        "| target | 1 caller: direct gRPC, ms | gateway, ms | added, ms | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        question = row.question
        lines.append(
            f"| {question.model} | {question.concurrency} | {row.gateway_rate:,.0f} "
            f"| {row.eager_rate:,.0f} ({row.threads}) | {row.ratio:.1f} {_span(row.ratios, 1)} "
            f"| ≥ {question.target_ratio:g} | {row.direct_milliseconds:.2f} "
            f"| {row.gateway_milliseconds:.2f} "
            f"| {row.added_milliseconds:.2f} {_span(row.added, 2)} "
            f"| ≤ {TARGET_ADDED_MILLISECONDS:g} |"
        )
    return "\n".join(lines)


def _span(values: tuple[float, ...], digits: int) -> str:
    return f"({min(values):.{digits}f}–{max(values):.{digits}f})"
