"""A real tritonserver with a stand-in forecaster, and the settings of a loop between servers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.prometheus_stack import Prometheus, free_port, samples
from tests.fixtures.stand_in_forecaster import write_forecaster

CONTEXT, HORIZON = 288, 144
STEP = 300
CONFIG = """
[prometheus]
url = "{prometheus}"
timeout_seconds = 5
attempts = 2

[triton]
url = "grpc://{triton}"
deadline_seconds = 3

[loop]
interval = "{interval}"
listen = "127.0.0.1:0"
state_file = "{state}"
{loop}

{queries}
"""
QUOTA = """
[[queries]]
metric = "quota_group_use_ratio"
labels = ["clu_name", "group"]
unit = "ratio"
threshold = 0.98
"""


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


POINTS = 2 * 288
SERIES = [(cluster, group) for cluster in ("a", 'b"\\x') for group in ("train", "推理")]
NEWEST = {("a", "train"): 0.5, ("a", "推理"): 0.6, ('b"\\x', "train"): 0.7, ('b"\\x', "推理"): 0.8}


def history(now: float) -> Iterator[str]:
    """Two days of a daily wave that ends at each series' NEWEST; beside it a counter."""
    for (cluster, group), newest in NEWEST.items():
        wave = [
            newest + 0.05 * math.sin(2 * math.pi * (i + 1 - POINTS) / 288) for i in range(POINTS)
        ]
        labels = {"clu_name": cluster, "group": group, "instance": "10.0.0.1:9100"}
        yield from samples("quota_group_use_ratio", labels, wave, end=now)
    labels = {"instance": "10.0.0.1:9100"}
    yield from samples("requests_total", labels, range(POINTS), end=now)


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    server.backfill(history(time.time()))
    with server:
        yield server


def values(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, sorted labels) → value of a page."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def forecasts(page: bytes) -> dict[tuple[str, str], float]:
    """(clu_name, group) → the 12h forecast."""
    return {
        (dict(labels)["clu_name"], dict(labels)["group"]): value
        for (name, labels), value in values(page).items()
        if name == "ai_forecast_quota_group_use_ratio" and dict(labels)["horizon"] == "12h"
    }


def own(page: bytes, name: str, **labels: str) -> float:
    found = values(page).get((f"ai_forecast_loop_{name}", tuple(sorted(labels.items()))))
    return math.nan if found is None else found


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


def loop_command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "services", "forecast_loop", *words, "--config", str(config)]


def run_loop(root: Path, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``python -m services forecast_loop …`` to its end."""
    return subprocess.run(
        loop_command(config, *words),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
