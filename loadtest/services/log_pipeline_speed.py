"""How many log lines a second the pipeline classifies, against the seed's way, in one run.

The pipeline is a process of its own, as in service; what answers it is the running tritonserver.
The seed's way is one HTTP request a line to eager PyTorch behind FastAPI; it is measured before
and after the pipeline's runs, on texts of which none comes twice, as it has no memory.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from clients import CallPolicy, LogAnomalyClient
from contract.errors import InputError, ServerAnswerError
from loadtest.eager_process import EagerProcess
from loadtest.memory import ResidentMemory

MODEL = "log_anomaly"
_LETTERS = "ghijklmnopqrstuvwxyz"
_CALLERS = (1, 8)
_EAGER_SECONDS = 5.0
_COMPARED_LINES = 500
_POLICY = CallPolicy(deadline_seconds=600.0)


@dataclass(frozen=True)
class SpeedSettings:
    """lines: of the repeated logs; distinct_lines: of those without a masked form that repeats."""

    url: str
    logs: Path
    repository: Path
    artifacts: Path
    lines: int = 5_000_000
    distinct_lines: int = 400
    rounds: int = 5


@dataclass(frozen=True)
class PipelineRun:
    """One ``score``: wall and CPU seconds of its process, and seconds since it read its first line.

    memory_mb: resident, over time
    """

    lines: int
    seconds: float
    cpu_seconds: float
    scored_seconds: float
    memory_mb: tuple[float, ...]
    masked: int
    asked: int

    @property
    def rate(self) -> float:
        return self.lines / self.seconds


@dataclass(frozen=True)
class Speed:
    runs: dict[str, PipelineRun]
    distinct: PipelineRun
    model_alone_rate: float
    distinct_ratio: float
    eager_rates: dict[int, float]
    compared: int
    flipped: int
    worst_difference: float


def measure_speed(settings: SpeedSettings) -> Speed:
    """Raises InputError (no logs), ServerError (nobody answers; a run failed or lost lines)."""
    base = read_logs(settings.logs)
    fresh = distinct_lines(base, random.Random(7))
    with tempfile.TemporaryDirectory(prefix="presage-speed-") as folder:
        logs = Path(folder)
        repeated = write_repeated(logs / "repeated.log", base, settings.lines)
        renumbered = write_renumbered(logs / "renumbered.log", base, max(1, settings.lines // 5))
        with EagerProcess(settings.repository, settings.artifacts) as eager:
            before = {n: eager_rate(eager, fresh, n) for n in _CALLERS}
            runs = {
                "repeated": score(settings.url, logs / "repeated.log", repeated),
                "every number new": score(settings.url, logs / "renumbered.log", renumbered),
            }
            distinct, alone, ratio = _distinct_rounds(settings, fresh, logs)
            after = {n: eager_rate(eager, fresh, n) for n in _CALLERS}
        compared, flipped, worst = compare_alone(settings.url, base, logs)
    return Speed(
        runs=runs,
        distinct=distinct,
        model_alone_rate=alone,
        distinct_ratio=ratio,
        eager_rates={n: (before[n] + after[n]) / 2 for n in _CALLERS},
        compared=compared,
        flipped=flipped,
        worst_difference=worst,
    )


def read_logs(folder: Path) -> bytes:
    """Every ``*.log`` below a folder as one block of whole lines. Raises InputError."""
    files = sorted(folder.rglob("*.log")) if folder.is_dir() else []
    block = b"".join(
        path.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n" for path in files
    )
    if not block.strip():
        raise InputError(
            "no logs to measure with",
            where=str(folder),
            expected="a folder with *.log files",
            next_command="set PRESAGE_DATA, or give --logs",
        )
    return block


def write_repeated(path: Path, base: bytes, lines: int) -> int:
    """``base`` again and again; the lines written, at least ``lines``."""
    each = base.count(b"\n")
    times = -(-lines // each)
    with path.open("wb") as file:
        for _ in range(times):
            file.write(base)
    return times * each


def write_renumbered(path: Path, base: bytes, lines: int) -> int:
    """As ``write_repeated``, but all digits that follow a digit are drawn anew each time."""
    bytes_of = np.frombuffer(base, np.uint8)
    is_digit = (bytes_of >= 48) & (bytes_of <= 57)
    places = np.flatnonzero(is_digit[1:] & is_digit[:-1]) + 1
    draw = np.random.default_rng(0)
    each = base.count(b"\n")
    times = -(-lines // each)
    with path.open("wb") as file:
        for _ in range(times):
            block = bytes_of.copy()
            block[places] = draw.integers(48, 58, len(places), dtype=np.uint8)
            file.write(block.tobytes())
    return times * each


def distinct_lines(base: bytes, draw: random.Random) -> Iterator[bytes]:
    """Lines of ``base`` with a word of letters that no rule masks: never one masked form twice."""
    for line in itertools.cycle([line for line in base.split(b"\n") if line.strip()]):
        word = "".join(draw.choices(_LETTERS, k=12))
        # In front: what follows the model's last token would make no difference to it.
        yield word.encode() + b" " + line


def score(url: str, path: Path, lines: int) -> PipelineRun:
    """One run of the command. Raises ServerAnswerError: it failed or lost lines."""
    command = [sys.executable, "-m", "services", "log_pipeline", "score", str(path)]
    command += ["--url", url, "--output", "summary", "--json-summary"]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent.parent.parent, stdout=subprocess.PIPE, stderr=errors
        )
        memory = ResidentMemory(process.pid)
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        samples = memory.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0:
            errors.seek(0)
            raise ServerAnswerError(
                "the pipeline failed", got=errors.read().decode("utf-8", "replace")[-500:]
            )
    summary = orjson.loads(told)
    if summary["lines"] != lines:
        raise ServerAnswerError(
            "the pipeline lost lines", expected=f"{lines:,}", got=f"{summary['lines']:,}"
        )
    return PipelineRun(
        lines=lines,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        scored_seconds=summary["seconds"],
        memory_mb=tuple(samples),
        masked=summary["masked"],
        asked=summary["asked"],
    )


def eager_rate(eager: EagerProcess, fresh: Iterator[bytes], callers: int) -> float:
    """Lines a second of ``callers`` that each send one line a request."""
    stop = time.perf_counter() + _EAGER_SECONDS
    lock = threading.Lock()

    def call(_: int) -> int:
        done = 0
        with eager.caller(MODEL) as ask:
            while time.perf_counter() < stop:
                with lock:
                    line = next(fresh)
                ask({"text": np.array([[line]], dtype=object)})
                done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        done = sum(pool.map(call, range(callers)))
    return done / (time.perf_counter() - started)


def _distinct_rounds(
    settings: SpeedSettings, fresh: Iterator[bytes], logs: Path
) -> tuple[PipelineRun, float, float]:
    """The pipeline and the client alone, in turns, on lines that are all new.

    The pipeline's middle run, the client's middle rate, and the middle of the neighbours' ratios,
    which counts from the first line: a process' start is the same for any number of lines.
    """
    own: list[PipelineRun] = []
    alone: list[float] = []
    count = settings.distinct_lines
    with LogAnomalyClient(settings.url, _POLICY) as client:
        client.classify([next(fresh)])
        for _ in range(settings.rounds):
            lines = list(itertools.islice(fresh, count))
            started = time.perf_counter()
            client.classify(lines)
            alone.append(count / (time.perf_counter() - started))
            path = logs / "distinct.log"
            path.write_bytes(b"".join(line + b"\n" for line in itertools.islice(fresh, count)))
            own.append(score(settings.url, path, count))
    ratios = [run.lines / run.scored_seconds / rate for run, rate in zip(own, alone, strict=True)]
    middle = sorted(own, key=lambda run: run.seconds)[len(own) // 2]
    return middle, median(alone), median(ratios)


def compare_alone(url: str, base: bytes, logs: Path) -> tuple[int, int, float]:
    """Lines compared, decisions that differ, worst difference of a score."""
    path = logs / "compared.log"
    write_renumbered(path, base, 1)
    path.write_bytes(base + path.read_bytes())
    command = [sys.executable, "-m", "services", "log_pipeline", "score", str(path)]
    told = subprocess.run(
        [*command, "--url", url, "--output", "all"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        check=True,
    ).stdout.splitlines()
    lines = path.read_bytes().split(b"\n")[:-1]
    chosen = random.Random(3).sample(range(len(lines)), min(_COMPARED_LINES, len(lines)))
    chosen = [index for index in chosen if lines[index].strip()]
    flipped, worst = 0, 0.0
    with LogAnomalyClient(url, _POLICY) as client:
        for index in chosen:
            (verdict,) = client.classify([lines[index]])
            answer = orjson.loads(told[index])
            flipped += answer["label"] != verdict.label or answer["line"] != index + 1
            worst = max(worst, abs(answer["score"] - verdict.score))
    return len(chosen), flipped, worst


def speed_table(speed: Speed) -> str:
    """Markdown."""
    seed = speed.eager_rates[1]
    lines = [
        "| log lines | lines/s | × seed's way | lines per CPU s | peak memory | at ¼, ½, ¾ of it "
        "| masked | asked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in [*speed.runs.items(), ("100% distinct forms", speed.distinct)]:
        lines.append(
            f"| {name}, {run.lines:,} | {run.rate:,.0f} | {run.rate / seed:,.1f} "
            f"| {run.lines / run.cpu_seconds:,.0f} | {max(run.memory_mb, default=0):.0f} MB "
            f"| {_quarters(run.memory_mb)} MB | {run.masked:,} | {run.asked:,} |"
        )
    for callers, rate in speed.eager_rates.items():
        lines.append(
            f"| seed's way: a request a line to eager PyTorch, {callers} callers "
            f"| {rate:,.0f} | {rate / seed:,.1f} | | | | | |"
        )
    lines.append(
        f"| the client alone, 100% distinct forms | {speed.model_alone_rate:,.0f} | | | | | | |"
    )
    lines += [
        "",
        f"{os.cpu_count()} cores, shared by the pipeline, tritonserver and the callers. "
        f"{speed.compared:,} lines compared with classifying each alone: {speed.flipped} decisions "
        f"differ, scores by at most {speed.worst_difference:.1e}. "
        f"Distinct forms against the client alone, in turns: {speed.distinct_ratio:.2f}×.",
    ]
    return "\n".join(lines)


def _quarters(samples: Sequence[float]) -> str:
    if not samples:
        return "–"
    places = (len(samples) // 4, len(samples) // 2, 3 * len(samples) // 4)
    return ", ".join(f"{samples[place]:.0f}" for place in places)
