"""The gateway as a process, before a real tritonserver: real text fronts over tiny models, and
forecasters whose answers a test can foresee.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from tests.fixtures.endpoints import wait_until
from tests.fixtures.stand_in_forecaster import write_forecaster
from training.registry import get_spec

ROOT = Path(__file__).parents[3]
APIS = ("metric_forecast", "log_anomaly", "train_failure_rca")


@dataclass
class Gateway:
    """A running ``python -m services gateway``; ``urls`` by API."""

    process: subprocess.Popen[bytes]
    urls: dict[str, str]
    folder: Path

    @property
    def access_log(self) -> bytes:
        return (self.folder / "stdout").read_bytes()

    @property
    def problems(self) -> str:
        return (self.folder / "stderr").read_text("utf-8", "replace")


@contextlib.contextmanager
def gateway_process(folder: Path, triton: str, *words: str, **variables: str) -> Iterator[Gateway]:
    """``python -m services gateway <words>`` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PRESAGE_")}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services", "gateway", *words, "--url", triton],
            cwd=ROOT,
            stdout=out,
            stderr=errors,
            env=environment | variables,
        )
    wanted = APIS if words[0] == "all" else (words[0],)

    def listening() -> dict[str, str]:
        text = (folder / "stderr").read_text("utf-8", "replace")
        assert process.poll() is None, text
        found = dict(re.findall(r"^gateway: (\w+) (https?://\S+)$", text, re.MULTILINE))
        return found if len(found) == len(wanted) else {}

    try:
        yield Gateway(process, wait_until(listening, what="the gateway listens"), folder)
    finally:
        process.terminate()
        process.wait(30)


def free_ports(words: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(f"--{api.replace('_', '-')}-port=0" for api in APIS) + words


def write_repository(repository: Path, runs: Path, toy_model: ModuleType) -> None:
    for name, make in (
        ("log_anomaly", toy_model.make_tiny_log_anomaly),
        ("train_failure_rca", toy_model.make_tiny_rca),
    ):
        stage(export_files(Candidate(get_spec(name), make(runs))).candidate, repository)
    write_forecaster(repository / "metric_forecast_next", 30, 1)
    write_forecaster(repository / "metric_forecast_12h", 2016, 144)


@contextlib.contextmanager
def tiny_triton(folder: Path, toy_model: ModuleType) -> Iterator[EmbeddedServer]:
    """A real tritonserver of all three models, tiny ones."""
    write_repository(folder / "repository", folder / "runs", toy_model)
    settings = ServerSettings(
        folder / "repository", http_port=0, grpc_port=0, metrics_port=0, run_folder=folder / "run"
    )
    with EmbeddedServer(settings) as server:
        yield server


@pytest.fixture(scope="session")
def triton(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    with tiny_triton(tmp_path_factory.mktemp("gateway_triton"), toy_model) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(triton: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """All three APIs, without tokens."""
    folder = tmp_path_factory.mktemp("gateway")
    words = ("all", "--no-tokens", "--repository", str(triton.settings.repository), *free_ports())
    with gateway_process(folder, f"grpc://{triton.grpc_url}", *words) as running:
        yield running


@pytest.fixture
def ask(gateway: Gateway) -> Iterator[dict[str, httpx.Client]]:
    """A client of each API."""
    with contextlib.ExitStack() as stack:
        yield {
            api: stack.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False))
            for api, url in gateway.urls.items()
        }
