"""One bounded, headless Locust run, and its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from contract.errors import ServerError, ServerUnavailableError
from loadtest.served import ready_models, served_models

LOCUST_FILE = Path(__file__).with_name("locustfile.py")
# Importing, spawning, waiting for the last answers.
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class LoadSettings:
    grpc_address: str
    http_address: str
    repository: Path
    artifacts: Path
    users: int = 8
    seconds: int = 10
    fresh: bool = False


@dataclass(frozen=True)
class LoadRow:
    """One model over one protocol; milliseconds are those of answered requests."""

    protocol: str
    model: str
    requests: int
    failures: int
    first_failure: str | None
    requests_per_second: float
    p50_milliseconds: float
    p95_milliseconds: float
    p99_milliseconds: float


def run_locust(settings: LoadSettings, *, progress: bool = True) -> list[LoadRow]:
    """Run the Locust file against a server and wait for its end.

    Raises:
        ServerUnavailableError: no server, or it serves none of the published models.
        ArtifactMissingError: nothing published. ServerError: Locust itself failed.
    """
    ready = ready_models(settings.http_address)
    published = {model.name for model in served_models(settings.repository, settings.artifacts)}
    if not published & ready:
        raise ServerUnavailableError(
            "the server serves none of the published models",
            where=settings.http_address,
            expected=", ".join(sorted(published)),
            got=", ".join(sorted(ready)) or "none",
        )
    with tempfile.TemporaryDirectory(prefix="presage-loadtest-") as folder:
        summary, log = Path(folder, "summary.json"), Path(folder, "locust.log")
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                _command(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(settings, summary),
            )
        try:
            _wait(process, settings.seconds, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not summary.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ServerError(
                "Locust ended without figures",
                where=str(LOCUST_FILE),
                expected="exit code 0 or 1 and a summary",
                got=f"exit code {process.returncode}: {lines[-1] if lines else 'no output'}",
            )
        stored = json.loads(summary.read_text(encoding="utf-8"))
    return [
        LoadRow(
            row["protocol"],
            row["model"],
            row["requests"],
            row["failures"],
            row["first_failure"],
            row["requests"] / settings.seconds,
            *row["milliseconds"],
        )
        for row in stored
    ]


def _command(settings: LoadSettings) -> list[str]:
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUST_FILE), "--headless"),
        *("--users", str(settings.users), "--spawn-rate", str(max(1, settings.users))),
        *("--run-time", f"{settings.seconds}s", "--stop-timeout", "10"),
        *("--host", f"http://{settings.http_address}", "--only-summary", "--loglevel", "WARNING"),
    ]


def _environment(settings: LoadSettings, summary: Path) -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PRESAGE_LOADTEST_GRPC": settings.grpc_address,
        "PRESAGE_LOADTEST_HTTP": settings.http_address,
        "PRESAGE_LOADTEST_REPOSITORY": str(settings.repository.absolute()),
        "PRESAGE_LOADTEST_ARTIFACTS": str(settings.artifacts.absolute()),
        "PRESAGE_LOADTEST_FRESH": "1" if settings.fresh else "0",
        "PRESAGE_LOADTEST_SUMMARY": str(summary),
    }


def _wait(process: subprocess.Popen[bytes], seconds: int, progress: bool) -> None:
    deadline = time.monotonic() + seconds + _GRACE_SECONDS
    with tqdm(
        total=seconds, unit="s", desc="locust", disable=not progress, bar_format="{l_bar}{bar}"
    ) as bar:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            bar.update(min(0.2, max(0.0, seconds - bar.n)))
    if process.poll() is None:
        raise ServerError(
            "Locust did not end",
            where=str(LOCUST_FILE),
            expected=f"within {seconds + _GRACE_SECONDS} s",
        )


def load_table(rows: list[LoadRow], settings: LoadSettings) -> str:
    """The figures as text, one row a model and protocol."""
    lines = [
        f"{settings.users} users for {settings.seconds} s"
        f" ({'every text new' if settings.fresh else 'golden questions, repeated'})",
        f"{'model':<24}{'protocol':<9}{'requests':>9}{'errors':>8}{'per s':>9}"
        f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}",
    ]
    for row in rows:
        lines.append(
            f"{row.model:<24}{row.protocol:<9}{row.requests:>9,}{row.failures:>8,}"
            f"{row.requests_per_second:>9.1f}{row.p50_milliseconds:>9.2f}"
            f"{row.p95_milliseconds:>9.2f}{row.p99_milliseconds:>9.2f}"
        )
    lines += [f"  {row.model}: {row.first_failure}" for row in rows if row.first_failure]
    return "\n".join(lines)
