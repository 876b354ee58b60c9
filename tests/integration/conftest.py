"""Run once for all integration tests: the chain of three tiny trainings, proven and published; and
a server of tiny random models, which costs far less.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.gateway_process import tiny_triton
from tests.fixtures.postgresql import PostgreSQL

TINY = {
    "metric_forecast": ["--epochs", "0.05", "--origins", "2"],
    "log_anomaly": ["--epochs", "0.05", "--draws", "2000"],
    "train_failure_rca": ["--epochs", "0.2", "--draws", "2000", "--logs", "120"],
}


@dataclass(frozen=True)
class Chain:
    """Where the tiny runs and their published versions lie."""

    artifacts: Path
    repository: Path
    root: Path
    export_output: str


def run_module(root: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``python -m …`` from the project's root, on generated data, without a hub."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PRESAGE_")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    result = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    if check:
        assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, repository_root: Path) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    artifacts, repository = folder / "artifacts", folder / "repository"
    for model, flags in TINY.items():
        words = ["training", "train", model, "--artifacts", str(artifacts), "--quiet", *flags]
        run_module(repository_root, *words)
    export = run_module(
        repository_root,
        *("export", "all", "--quiet"),
        *("--artifacts", str(artifacts), "--repository", str(repository)),
    )
    return Chain(artifacts, repository, repository_root, export.stdout)


@pytest.fixture(scope="session")
def served(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    settings = ServerSettings(
        chain.repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        venv=chain.root / ".venv-triton",
        run_folder=tmp_path_factory.mktemp("server"),
    )
    with EmbeddedServer(settings) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_server(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A real tritonserver of all three models, tiny ones; for the tests that do not stop it."""
    with tiny_triton(tmp_path_factory.mktemp("tiny_server"), toy_model) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server
