"""A real tritonserver with the real text front before a classifier of two tiny layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.gate import Ascent, export_files
from export.version_folder import stage
from training.registry import get_spec


@pytest.fixture(scope="session")
def ascents(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ascent, Ascent]:
    """Two exported runs of other weights and other thresholds."""
    spec = get_spec("log_anomaly")
    first, second = (
        export_files(
            Candidate(spec, toy_model.make_tiny_log_anomaly(tmp_path_factory.mktemp("run"), seed))
        )
        for seed in (0, 1)
    )
    return first, second


def start(repository: Path, run_folder: Path) -> EmbeddedServer:
    settings = ServerSettings(
        repository, http_port=0, grpc_port=0, metrics_port=0, run_folder=run_folder
    )
    server = EmbeddedServer(settings)
    server.start()
    return server


@pytest.fixture(scope="session")
def triton(
    ascents: tuple[Ascent, Ascent], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """One version, for the tests that change nothing in the server."""
    folder = tmp_path_factory.mktemp("pipeline_server")
    stage(ascents[0].candidate, folder / "repository")
    server = start(folder / "repository", folder / "run")
    yield server
    server.stop()


@pytest.fixture
def own_triton(ascents: tuple[Ascent, Ascent], tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, whose versions it may swap."""
    stage(ascents[0].candidate, tmp_path / "repository")
    server = start(tmp_path / "repository", tmp_path / "run")
    yield server
    server.stop()
