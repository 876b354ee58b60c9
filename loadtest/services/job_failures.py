"""Failures a minute that the job-failure service answers without losing one, in one run.

The service is a process of its own on the running tritonserver. Failures come at fixed moments,
whether or not earlier ones are answered (an open loop): a slow service gets no mercy. Then every
one of them must be in the database, once. Last, one huge log shows what memory an upload costs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from contract.errors import ServerAnswerError, ServerUnavailableError
from loadtest.memory import ResidentMemory

_HOST = "127.0.0.1"
_CALLERS = 32
_START_SECONDS = 60.0
_SETTLE_SECONDS = 120.0
_PIECE_BYTES = 1 << 20
_NODES, _USERS = 40, 25


@dataclass(frozen=True)
class FailureSettings:
    """database_url: "" takes a new SQLite file. huge_bytes: of the last log; 0: none."""

    triton_url: str
    per_minute: int = 500
    minutes: float = 1.0
    database_url: str = ""
    huge_bytes: int = 1 << 30
    seed: int = 0


@dataclass
class FailureRun:
    """milliseconds: of each answer, in order of sending; stored: results by how often they are
    there; growth: of resident memory, above the moment before.
    """

    failures: int = 0
    log_bytes: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    late_milliseconds: float = 0.0
    settled_seconds: float = 0.0
    lost: int = 0
    twice: int = 0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    huge_seconds: float = 0.0
    huge_growth_mb: float = 0.0
    huge_status: int = 0
    load_average: float = 0.0


def measure_failures(settings: FailureSettings) -> FailureRun:
    """Raises ServerUnavailableError: the service does not start."""
    logs = _logs(settings)
    run = FailureRun(failures=len(logs), log_bytes=sum(map(len, logs)))
    run.load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="presage-failures-") as folder:
        service = _Service(Path(folder), settings)
        try:
            service.start()
            _storm(service, logs, settings, run)
            _count_stored(service, run)
            if settings.huge_bytes:
                _send_huge(service, settings.huge_bytes, run)
        finally:
            run.cpu_seconds = service.stop()
    return run


class _Service:
    def __init__(self, folder: Path, settings: FailureSettings) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            self._port: int = probe.getsockname()[1]
        url = settings.database_url or f"sqlite:///{folder}/jobs.sqlite"
        self._command = [sys.executable, "-m", "services", "job_diagnosis", "--no-tokens"]
        self._command += ["--port", str(self._port), "--triton-url", settings.triton_url]
        self._command += ["--spool", str(folder / "spool")]
        self._environment = os.environ | {
            "PRESAGE_JOBS_DATABASE_URL": url,
            "PRESAGE_RATE_PER_SECOND": "0",
            "PRESAGE_LARGEST_STREAM_BYTES": str(max(1 << 30, settings.huge_bytes + 4096)),
        }
        self.http = httpx.Client(
            base_url=f"http://{_HOST}:{self._port}",
            timeout=300.0,
            trust_env=False,
            limits=httpx.Limits(max_connections=_CALLERS),
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=Path(__file__).parent.parent.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.http.get("/healthz").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        told = (self._folder / "log").read_text("utf-8", "replace")
        raise ServerUnavailableError("the service does not start", got=told[-500:])

    def stop(self) -> float:
        """Its CPU seconds."""
        process, self.process = self.process, None
        self.http.close()
        if process is None:
            return 0.0
        process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime


def _logs(settings: FailureSettings) -> list[bytes]:
    """Composed as training's are, each another one."""
    from training.train_failure_rca.corpus import load_catalogue
    from training.train_failure_rca.data import compose_job_logs

    count = max(1, round(settings.per_minute * settings.minutes))
    composed = compose_job_logs(load_catalogue(), settings.seed, count)
    return [
        f"{log.text}\nrun {number}\n".encode("utf-8", "replace")
        for number, log in enumerate(composed)
    ]


def _storm(
    service: _Service, logs: list[bytes], settings: FailureSettings, run: FailureRun
) -> None:
    random = np.random.default_rng(settings.seed)
    names = [f"gpu-{number:03d}" for number in range(_NODES)]
    facts = [
        {"node": names[n], "user": f"user{u}"}
        for n, u in zip(
            random.integers(_NODES, size=len(logs)),
            random.integers(_USERS, size=len(logs)),
            strict=True,
        )
    ]
    assert service.process is not None
    memory = ResidentMemory(service.process.pid)
    started = time.perf_counter()
    moments = [started + 60.0 * number / settings.per_minute for number in range(len(logs))]

    def send(number: int) -> tuple[int, float, float]:
        time.sleep(max(0.0, moments[number] - time.perf_counter()))
        late = time.perf_counter() - moments[number]
        try:
            status = service.http.post(
                f"/v1/jobs/job-{number}/failure", content=logs[number], params=facts[number]
            ).status_code
        except httpx.HTTPError:
            status = 0
        # From the moment it was due: who waited for a free caller waited too.
        return status, (time.perf_counter() - moments[number]) * 1e3, late * 1e3

    with ThreadPoolExecutor(_CALLERS) as pool:
        answers = list(pool.map(send, range(len(logs))))
    run.seconds = time.perf_counter() - started
    run.statuses = Counter(status for status, _, _ in answers)
    run.milliseconds = [milliseconds for _, milliseconds, _ in answers]
    run.late_milliseconds = max(late for _, _, late in answers)
    run.peak_mb = max(memory.stop(), default=0.0)


def _count_stored(service: _Service, run: FailureRun) -> None:
    started = time.perf_counter()
    while True:
        stored = Counter(_stored_jobs(service))
        run.lost = sum(f"job-{number}" not in stored for number in range(run.failures))
        run.settled_seconds = time.perf_counter() - started
        if not run.lost or run.settled_seconds > _SETTLE_SECONDS:
            break
        time.sleep(0.5)
    run.twice = sum(count > 1 for count in stored.values())


def _stored_jobs(service: _Service) -> Iterator[str]:
    cursor: dict[str, str] = {}
    while True:
        page = service.http.get("/v1/jobs", params={"limit": 200, **cursor})
        if page.status_code != 200:
            raise ServerAnswerError("results cannot be searched", got=page.text[:200])
        told = page.json()
        yield from (result["job_id"] for result in told["results"])
        if told["next_cursor"] is None:
            return
        cursor = {"cursor": told["next_cursor"]}


def _send_huge(service: _Service, size_bytes: int, run: FailureRun) -> None:
    """Calm lines with many complaints among them: all three parts of a thinned log are filled."""
    calm = b"2026-03-05 12:00:%02d rank %d step %d loss=%.4f tokens/s=%d\n"
    complaint = b"ERROR rank %d request q%d of worker w%d failed: timeout\n"
    rows = [calm % (i % 60, i % 64, i, i % 97 / 31, i * 7) for i in range(_PIECE_BYTES // 64)]

    def pieces() -> Iterator[bytes]:
        sent = number = 0
        while sent < size_bytes - 100:
            for place in range(0, len(rows), 50):
                number += 1
                name = f"x{number:x}".translate(str.maketrans("0123456789", "ghijklmnop"))
                rows[place] = complaint.replace(b"w%d", name.encode()) % (number % 64, number)
            piece = b"".join(rows)[: size_bytes - sent - 100]
            sent += len(piece)
            yield piece
        yield b"\nRuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n"

    assert service.process is not None
    memory = ResidentMemory(service.process.pid)
    time.sleep(1.0)
    started = time.perf_counter()
    answer = service.http.post(
        "/v1/jobs/huge/failure", content=pieces(), headers={"Prefer": "wait=200"}
    )
    run.huge_seconds = time.perf_counter() - started
    run.huge_status = answer.status_code
    time.sleep(1.0)
    samples = memory.stop()
    run.huge_growth_mb = max(samples) - samples[0]


def failures_table(run: FailureRun, settings: FailureSettings) -> str:
    """Markdown."""
    p50, p95, p99 = np.percentile(run.milliseconds, [50, 95, 99])
    rate = run.failures / run.seconds * 60
    lines = [
        "| failures | sent a minute | answered | 202, later | lost | twice | p50 | p95 | p99 "
        "| CPU | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        f"| {run.failures:,} of {run.log_bytes / run.failures / 1e3:,.1f} kB | {rate:,.0f} "
        f"| {run.statuses[200]:,} | {run.statuses[202]:,} | {run.lost:,} | {run.twice:,} "
        f"| {p50:,.0f} ms | {p95:,.0f} ms | {p99:,.0f} ms "
        f"| {run.cpu_seconds:,.0f} s | {run.peak_mb:,.0f} MB |",
        "",
    ]
    others = {s: n for s, n in sorted(run.statuses.items()) if s not in (200, 202)}
    if others:
        lines.append(f"Other answers: {', '.join(f'{n} of {s}' for s, n in others.items())}.")
    lines.append(
        f"{os.cpu_count()} cores, shared by the service, tritonserver and the caller; load average "
        f"{run.load_average:.1f} before the run; a caller was at most "
        f"{run.late_milliseconds:,.0f} ms late. All were in the database "
        f"{run.settled_seconds:.1f} s after the last answer."
    )
    if settings.huge_bytes:
        lines.append(
            f"One log of {settings.huge_bytes / 1e9:.2f} GB: {run.huge_status} in "
            f"{run.huge_seconds:,.0f} s, {run.huge_growth_mb:,.0f} MB more memory at the most."
        )
    return "\n".join(lines)
