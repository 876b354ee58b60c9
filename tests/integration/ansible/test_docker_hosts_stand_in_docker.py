"""The role for Docker hosts, before a "docker" that only writes down what it is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from tests.fixtures.ansible_hosts import Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_STAND_IN = """#!/bin/sh
echo "$(basename "$PWD") $*" >>{log}
case "$*" in
  *"clients health"*) echo '{{"model": "log_anomaly", "version": "1", "state": "READY"}}' ;;
  *" up "*) [ "$(basename "$PWD")" != broken ] || exit 1; echo " Container presage Started" >&2 ;;
esac
"""


class _Override(yaml.SafeLoader):
    """With compose's own tag."""


_Override.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hosts, Path]:
    folder = tmp_path_factory.mktemp("docker")
    log, program = folder / "told", folder / "docker"
    program.write_text(_STAND_IN.format(log=log), "utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    hosts = Hosts(
        folder,
        {"one": {}},
        presage_runtime="docker",
        presage_registry="registry.example.com",
        presage_services=["triton", "log-anomaly", "job-diagnosis"],
        presage_listen_address="0.0.0.0",
        presage_secrets={"tokens": "alice = 1\n", "job-diagnosis.env": "A=b\n"},
        presage_docker_program=[str(program), "compose"],
        presage_docker_files=["deploy/prometheus"],
    )
    return hosts, log


def test_images_of_the_tag_are_pulled_started_and_asked(host: tuple[Hosts, Path]) -> None:
    hosts, log = host
    played = hosts.play("rolling.yml", presage_tag="1.0.0")
    assert played.code == 0, played.output
    services = "triton-cpu job-diagnosis log-anomaly"
    told = log.read_text().splitlines()
    assert told[0] == f"1.0.0 compose pull --quiet {services}"
    assert told[1].startswith("1.0.0 compose rm --stop --force ")
    assert not set(told[1].split()) & set(services.split())
    assert told[2].startswith("1.0.0 compose up --detach --no-build --wait ")
    assert told[2].endswith(services)
    release = hosts.path("one", "/opt/presage/releases/1.0.0")
    lines = dict(
        line.split("=", 1)
        for line in (release / ".env").read_text().splitlines()
        if not line.startswith("#")
    )
    assert (lines["PRESAGE_REGISTRY"], lines["PRESAGE_TAG"]) == ("registry.example.com", "1.0.0")
    assert "alice" not in (release / ".env").read_text()
    override = yaml.load((release / "docker-compose.override.yml").read_text(), Loader=_Override)
    assert override["services"]["log-anomaly"]["ports"] == ["0.0.0.0:8002:8002"]
    assert override["services"]["log-anomaly"]["secrets"] == ["tokens"]
    assert Path(override["secrets"]["tokens"]["file"]).read_text() == "alice = 1\n"
    assert (release / "deploy/prometheus/forecast_loop.toml").is_file()


def test_a_release_that_does_not_start_goes_back(host: tuple[Hosts, Path]) -> None:
    hosts, log = host
    played = hosts.play("rolling.yml", presage_tag="broken")
    assert played.code != 0
    assert hosts.record("one") == {"current": "broken", "healthy": ["1.0.0"]}
    back = hosts.play("rollback.yml")
    assert back.code == 0, back.output
    assert log.read_text().splitlines()[-1].startswith("1.0.0 compose up ")
    assert hosts.path("one", "/opt/presage/current").readlink().name == "1.0.0"
    assert json.loads(hosts.path("one", "/opt/presage/deployed.json").read_text()) == {
        "current": "1.0.0",
        "healthy": ["1.0.0"],
    }


def test_every_service_is_one_of_the_compose_file(
    host: tuple[Hosts, Path], repository_root: Path
) -> None:
    compose = yaml.safe_load((repository_root / "docker-compose.yml").read_text())["services"]
    if "log-anomaly" not in compose:
        pytest.skip("docker-compose.yml of this checkout has Triton alone")
    defaults = yaml.safe_load(
        (repository_root / "deploy/ansible/roles/presage/defaults/main.yml").read_text()
    )
    assert {*defaults["presage_catalogue"], "triton-cpu"} <= set(compose)
    for name in defaults["presage_catalogue"]:
        assert f"/presage/{name}:${{PRESAGE_TAG" in compose[name]["image"]
