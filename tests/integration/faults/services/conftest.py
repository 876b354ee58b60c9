"""One real tritonserver of tiny models for all services; each stands behind a network of its own
that a test can lose.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.fault_proxy import FaultProxy, Mode

SHORT_SECONDS, LONG_SECONDS = 2.5, 30.0
WAYS: tuple[Mode, ...] = ("refuse", "black_hole", "stall", "reset", "slow")


def long(*values: object) -> object:
    """Parameters of what only `make faults` has the time for."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def triton_proxy(tiny_server: EmbeddedServer) -> Iterator[FaultProxy]:
    with FaultProxy(tiny_server.grpc_url) as proxy:
        yield proxy


class MortalServer:
    """A real tritonserver of a test's own that is killed and comes back on its ports."""

    def __init__(self, of: EmbeddedServer, folder: Path) -> None:
        self._settings = replace(of.settings, run_folder=folder)
        self._server = EmbeddedServer(self._settings)
        self._server.start()
        self.address = self._server.grpc_url

    def kill(self) -> None:
        """kill -9 of the server and of its models' processes."""
        assert self._server.server_pid is not None
        os.killpg(self._server.server_pid, signal.SIGKILL)
        self._server.stop()

    def start(self) -> None:
        port = int(self.address.rpartition(":")[2])
        self._server = EmbeddedServer(replace(self._settings, grpc_port=port))
        self._server.start()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._server.stop()


@pytest.fixture
def mortal_server(tiny_server: EmbeddedServer, tmp_path: Path) -> Iterator[MortalServer]:
    server = MortalServer(tiny_server, tmp_path / "mortal")
    yield server
    server.stop()
