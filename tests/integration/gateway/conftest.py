"""The gateway as a process, before a real tritonserver of tiny models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.gateway_process import Gateway, free_ports, gateway_process


@pytest.fixture(scope="session")
def triton(tiny_server: EmbeddedServer) -> EmbeddedServer:
    return tiny_server


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
