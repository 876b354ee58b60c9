"""A tritonserver and a gateway of a run's own, on free ports, ended with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedded_triton import EmbeddedServer, ServerSettings
from loadtest.gateway_speed import gateway
from loadtest.triton_statistics import read_counts

RUN_FOLDER = Path("build/load/server")


@dataclass(frozen=True)
class Endpoints:
    """host:port each; ``gateway_ports`` by API.

    ready_requests: {model: requests it had answered when it was ready}: its warm-up and canary
    """

    grpc_address: str
    http_address: str
    gateway_ports: dict[str, int]
    server_pid: int | None = None
    ready_seconds: float | None = None
    ready_requests: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def own_server(
    repository: Path, *, with_gateway: bool = True, run_folder: Path = RUN_FOLDER
) -> Iterator[Endpoints]:
    """Raises ServerSetupError."""
    settings = ServerSettings(
        repository, http_port=0, grpc_port=0, metrics_port=0, run_folder=run_folder
    )
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        server = stack.enter_context(EmbeddedServer(settings))
        seconds = time.monotonic() - started
        counts = read_counts(server.http_url)
        ready = {name: count.requests for name, count in counts.items()}
        ports: dict[str, int] = {}
        if with_gateway:
            ports = stack.enter_context(gateway(f"grpc://{server.grpc_url}", repository))
        yield Endpoints(server.grpc_url, server.http_url, ports, server.server_pid, seconds, ready)
