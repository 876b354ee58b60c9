"""One release on one host, as rolling.yml puts it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.ansible_hosts import Hosts, Played
from tests.fixtures.endpoints import free_port


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hosts, Played]:
    """Host ``one`` with the log pipeline of release 1.0.0."""
    folder: Path = tmp_path_factory.mktemp("ansible")
    hosts = Hosts(
        folder,
        {"one": {"presage_log_pipeline_port": free_port()}},
        presage_services=["log-pipeline"],
    )
    hosts.pack("1.0.0")
    return hosts, hosts.play("rolling.yml", presage_tag="1.0.0")
