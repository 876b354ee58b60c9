"""The whole way of an alert between real servers, in a world where a model's step is a second.

source → Prometheus → loop → Triton → loop → scrape or Pushgateway → rules → Alertmanager → webhook
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from services.forecast_loop.config import load_config
from services.forecast_loop.rules import rule_files
from tests.fixtures.endpoints import MetricsEndpoint, Webhook
from tests.fixtures.prometheus_stack import (
    Alertmanager,
    Prometheus,
    Pushgateway,
    free_port,
    program,
    samples,
    wait_until,
)
from tests.fixtures.slope_forecaster import write_slope_forecaster

CONTEXT, HORIZON = 120, 60
METRIC = "quota_group_use_ratio"
CONFIG = """
[prometheus]
url = "{prometheus}"
timeout_seconds = {timeout}
attempts = 1

[triton]
url = "grpc://{triton}"
deadline_seconds = {timeout}

[loop]
interval = "{step}s"
horizons = ["{horizon}s"]
stale_after_intervals = {stale_after}
timestamp_per = "{timestamp_per}"
listen = "127.0.0.1:{port}"
state_file = "{folder}/state.npz"
{loop}

[[queries]]
metric = "quota_group_use_ratio"
labels = ["clu_name", "group"]
unit = "ratio"
threshold = 0.98
step = "{step}s"
linear_window = "{window}s"
"""

Usage = Callable[[float], float]
"""Steps since the world began → the value then; NaN is no sample."""


def growth(t: float) -> float:
    """Towards 100% in half a horizon."""
    return 0.8 + 0.006 * t


def plateau(t: float) -> float:
    """Mass deletion, refill in 20 steps, and flat since 40 steps before the world began."""
    return 0.1 if t < -60 else min(0.7, 0.1 + 0.03 * (t + 60))


def calm(t: float) -> float:
    return 0.5 + 0.01 * math.sin(t / 5)


@dataclass
class World:
    """The servers, and what the source says: ``usage`` may be changed at any time.

    step_seconds: of the model, and between cycles; stale_after: in intervals
    pushed: the loop pushes; scraped: Prometheus reads its /metrics, else the Pushgateway's
    timestamp_per: as in the loop's settings; its rules follow
    between: what stands between the loop and Prometheus, by Prometheus' URL
    """

    folder: Path
    root: Path
    triton: EmbeddedServer
    step_seconds: int = 1
    stale_after: int = 8
    timeout_seconds: float = 5.0
    pushed: bool = False
    scraped: bool = True
    timestamp_per: str = "series"
    between: Callable[[str], str] = str
    began: float = field(default_factory=time.time)
    usage: dict[str, Usage] = field(
        default_factory=lambda: {"growth": growth, "plateau": plateau, "calm": calm}
    )
    webhook: Webhook = field(default_factory=Webhook)
    _loop: subprocess.Popen[bytes] | None = None

    def start(self, stack: contextlib.ExitStack) -> None:
        self.source = stack.enter_context(MetricsEndpoint(self._metrics))
        stack.enter_context(self.webhook)
        self.alertmanager = stack.enter_context(
            Alertmanager(self.folder / "alertmanager", self.webhook.url)
        )
        self.port = free_port()
        self.gateway: Pushgateway | None = None
        forecasts: dict = {
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}],
        }
        if self.pushed:
            self.gateway = stack.enter_context(Pushgateway(self.folder / "pushgateway"))
        if self.gateway and not self.scraped:
            forecasts = self.gateway.scrape_config()
        rules = self.folder / "rules"
        self.prometheus = Prometheus(
            self.folder / "prometheus",
            scrape={"source": self.source.target, "ai_forecast": forecasts},
            alertmanager=self.alertmanager.target,
        )
        self.config = self.folder / "forecast_loop.toml"
        self.config.write_text(
            CONFIG.format(
                prometheus=self.between(self.prometheus.url),
                triton=self.triton.grpc_url,
                timeout=self.timeout_seconds,
                step=self.step_seconds,
                horizon=HORIZON * self.step_seconds,
                window=CONTEXT * self.step_seconds,
                stale_after=self.stale_after,
                timestamp_per=self.timestamp_per,
                port=self.port,
                folder=self.folder,
                loop=f'push_url = "{self.gateway.url}"' if self.gateway else "",
            )
        )
        rules.mkdir()
        for name, text in rule_files(load_config(self.config)).items():
            (rules / name).write_text(text, encoding="utf-8")
        self.began = time.time()
        self.prometheus.backfill(self._history())
        stack.enter_context(self.prometheus)
        stack.callback(self.kill_loop)
        self.start_loop()
        self.prometheus.wait_for(f"ai_forecast_{METRIC}")
        # Only now: rules that see the source before its first forecast call that stale, rightly.
        self.prometheus.rules = [rules / f"{METRIC}.yml", rules / "ai_forecast_loop.yml"]
        self.prometheus.reload()

    def start_loop(self) -> None:
        with (self.folder / "loop.log").open("ab") as log:
            self._loop = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services", "forecast_loop", "run"),
                    *("--config", str(self.config)),
                ],
                cwd=self.root,
                stdout=log,
                stderr=log,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        wait_until(self._is_ready, seconds=40, what="the loop forecasts")

    @property
    def loop(self) -> subprocess.Popen[bytes]:
        assert self._loop is not None
        return self._loop

    def kill_loop(self) -> None:
        """SIGKILL: no last words."""
        process, self._loop = self._loop, None
        if process is not None:
            process.kill()
            process.wait()

    def value(self, series: str, group: str) -> float:
        """Now, in Prometheus; NaN where there is none."""
        return self.prometheus.value(f'{series}{{group="{group}"}}')

    def _is_ready(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _metrics(self) -> str:
        now = (time.time() - self.began) / self.step_seconds
        return "".join(
            f'{METRIC}{{clu_name="c1",group="{group}"}} {value:.6f}\n'
            for group, usage in self.usage.items()
            if not math.isnan(value := usage(now))
        )

    def _history(self) -> Iterator[str]:
        for group, usage in self.usage.items():
            labels = {"clu_name": "c1", "group": group, "instance": self.source.target}
            values = [usage(t) for t in range(-2 * CONTEXT, 0)]
            labels["job"] = "source"
            yield from samples(
                METRIC, labels, values, end=self.began, step_seconds=self.step_seconds
            )


@pytest.fixture(scope="session")
def triton(
    tmp_path_factory: pytest.TempPathFactory, repository_root: Path
) -> Iterator[EmbeddedServer]:
    """A real tritonserver with a stand-in model; tests leave it running, on its port."""
    for name in ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager"):
        program(name)
    folder = tmp_path_factory.mktemp("slope_forecaster")
    write_slope_forecaster(folder / "repository/metric_forecast_12h", CONTEXT, HORIZON)
    settings = ServerSettings(
        folder / "repository",
        http_port=0,
        grpc_port=free_port(),
        metrics_port=0,
        venv=repository_root / ".venv-triton",
        run_folder=folder / "run",
    )
    with EmbeddedServer(settings) as server:
        yield server


@pytest.fixture
def make_world(
    tmp_path: Path, repository_root: Path, triton: EmbeddedServer
) -> Iterator[Callable[..., World]]:
    """``make_world(…)``, as ``World``: everything runs, and the loop has forecast once."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> World:
            world = World(tmp_path, repository_root, triton, **settings)
            world.start(stack)
            return world

        yield make
