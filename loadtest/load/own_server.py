"""A tritonserver and a gateway of a run's own, on free ports, ended with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedded_triton import EmbeddedServer, ServerSettings
from loadtest.load.triton_statistics import read_counts
from loadtest.services.gateway_speed import gateway

RUN_FOLDER = Path("build/load/server")
# A busy machine is slow to load five models; that is not what is measured.
_START_SECONDS = 240.0


@dataclass(frozen=True)
class Endpoints:
    """host:port each; ``gateway_ports`` by API.

    ready_requests: {model: requests it had answered when it was ready}: its warm-up and canary
    """

    grpc_address: str
    http_address: str
    gateway_ports: dict[str, int]
    ready_requests: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def own_server(repository: Path) -> Iterator[Endpoints]:
    """Raises ServerSetupError."""
    settings = ServerSettings(
        repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        run_folder=RUN_FOLDER,
        startup_timeout_seconds=_START_SECONDS,
    )
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(settings))
        counts = read_counts(server.http_url)
        ready = {name: count.requests for name, count in counts.items()}
        ports = stack.enter_context(gateway(f"grpc://{server.grpc_url}", repository))
        yield Endpoints(server.grpc_url, server.http_url, ports, ready)
