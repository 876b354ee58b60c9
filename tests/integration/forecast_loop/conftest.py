"""A real tritonserver with a stand-in forecaster, and the settings of a loop between servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.loop_process import CONFIG, CONTEXT, HORIZON, QUOTA, history
from tests.fixtures.prometheus_stack import Prometheus, free_port
from tests.fixtures.stand_in_forecaster import write_forecaster


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("forecaster") / "repository"
    write_forecaster(folder / "metric_forecast_12h", CONTEXT, HORIZON)
    return folder


def triton_settings(repository: Path, folder: Path, root: Path, port: int) -> ServerSettings:
    return ServerSettings(
        repository,
        http_port=0,
        grpc_port=port,
        metrics_port=0,
        venv=root / ".venv-triton",
        run_folder=folder,
    )


@pytest.fixture(scope="session")
def triton(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> Iterator[EmbeddedServer]:
    """Tests may stop and start it, on the same port, as long as they leave it running."""
    folder = tmp_path_factory.mktemp("triton")
    with EmbeddedServer(
        triton_settings(repository, folder, repository_root, free_port())
    ) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    server.backfill(history(time.time()))
    with server:
        yield server


WriteConfig = Callable[..., Path]


@pytest.fixture
def write_config(tmp_path: Path, triton: EmbeddedServer) -> WriteConfig:
    """Settings as a file: ``write_config(prometheus_url, loop="…", queries="…")``."""

    def write(
        prometheus: str, *, loop: str = "", queries: str = QUOTA, interval: str = "5m"
    ) -> Path:
        path = tmp_path / "forecast_loop.toml"
        path.write_text(
            CONFIG.format(
                prometheus=prometheus,
                triton=triton.grpc_url,
                state=tmp_path / "state.npz",
                loop=loop,
                queries=queries,
                interval=interval,
            )
        )
        return path

    return write
