"""A real tritonserver with the real front before a tiny model; the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from tests.fixtures.jobs_process import JobsProcess
from training.registry import get_spec


@pytest.fixture(scope="session")
def repository(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model repository with one version of a failure model of random weights."""
    folder = tmp_path_factory.mktemp("jobs")
    run = toy_model.make_tiny_rca(folder / "runs")
    stage(export_files(Candidate(get_spec("train_failure_rca"), run)).candidate, folder / "models")
    return folder / "models"


class Triton:
    """Started and stopped by a test; the same address each time."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self._repository = repository
        self._folder = folder
        self._server: EmbeddedServer | None = None
        self._ports = (0, 0, 0)
        self.url = ""

    def start(self) -> None:
        http, grpc, metrics = self._ports
        settings = ServerSettings(
            self._repository,
            http_port=http,
            grpc_port=grpc,
            metrics_port=metrics,
            run_folder=self._folder,
        )
        self._server = EmbeddedServer(settings)
        self._server.start()
        self.url = f"grpc://{self._server.grpc_url}"
        port = int(self._server.grpc_url.rpartition(":")[2])
        self._ports = (0, port, 0)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


@pytest.fixture(scope="session")
def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """For the tests that do not stop it."""
    server = Triton(repository, tmp_path_factory.mktemp("triton"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_triton(repository: Path, tmp_path: Path) -> Iterator[Triton]:
    """Of the test's own."""
    server = Triton(repository, tmp_path / "triton")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_service(tmp_path: Path, triton: Triton) -> Iterator[Callable[..., JobsProcess]]:
    """``make_service(*flags, database_url=…, triton_url=…)``, not started; killed at the end."""
    made: list[JobsProcess] = []

    def make(*flags: str, database_url: str = "", triton_url: str = "") -> JobsProcess:
        folder = tmp_path / f"service{len(made)}"
        url = database_url or f"sqlite:///{folder}/jobs.sqlite"
        made.append(JobsProcess(folder, triton_url or triton.url, url, *flags))
        return made[-1]

    yield make
    for service in made:
        service.kill()
