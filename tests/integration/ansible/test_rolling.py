"""Rolling and rolling back between two hosts below two folders, with releases that differ."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.fixtures.ansible_hosts import Hosts, Played, Unit
from tests.fixtures.endpoints import Endpoint, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
UNIT = "/etc/systemd/system/presage-log-pipeline.service"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    """Both run 1.0.0; ``one`` is the canary."""
    hosts = Hosts(
        tmp_path_factory.mktemp("two"),
        {name: {"presage_log_pipeline_port": free_port()} for name in ("one", "two")},
        presage_services=["log-pipeline"],
    )
    hosts.pack("1.0.0", "1.1.0", "1.2.0")
    played = hosts.play("rolling.yml", presage_tag="1.0.0")
    assert played.code == 0, played.output
    return hosts


def _runs(hosts: Hosts, host: str) -> str:
    """The release that the host's unit starts; current says the same."""
    unit = Unit(hosts.path(host, UNIT))
    tag = Path(unit.command[0]).parent.parent.parent.name
    assert hosts.path(host, "/opt/presage/current").readlink().name == tag
    return tag


def test_a_second_run_changes_nothing(two: Hosts) -> None:
    played = two.play("rolling.yml", presage_tag="1.0.0")
    assert played.code == 0, played.output
    assert {host: counts["changed"] for host, counts in played.recap.items()} == {
        "one": 0,
        "two": 0,
    }


def test_a_canary_that_does_not_pass_ends_the_run_and_alone_goes_back(two: Hosts) -> None:
    assert two.play("rolling.yml", presage_tag="1.1.0").code == 0
    assert two.record("two") == {"current": "1.1.0", "healthy": ["1.0.0", "1.1.0"]}

    # Nobody answers as Triton, so the gate stays shut.
    unanswered = {
        "presage_health_gate": True,
        "presage_triton_url": f"grpc://127.0.0.1:{free_port()}",
    }
    played = two.play("rolling.yml", presage_tag="1.2.0", **unanswered)
    assert played.code != 0
    assert "Ask Triton for every model" in played.output
    assert _runs(two, "one") == "1.2.0"
    assert two.record("one") == {"current": "1.2.0", "healthy": ["1.0.0", "1.1.0"]}
    assert "two" not in played.recap
    assert _runs(two, "two") == "1.1.0"
    assert not two.path("two", "/opt/presage/releases/1.2.0").exists()

    played = two.play("rollback.yml")
    assert played.code == 0, played.output
    assert _runs(two, "one") == "1.1.0"
    # It never had 1.2.0: going back by one would have been 1.0.0.
    assert _runs(two, "two") == "1.1.0"
    assert two.record("one") == {"current": "1.1.0", "healthy": ["1.0.0", "1.1.0"]}


def test_every_host_goes_back_and_not_further_than_there_is(two: Hosts) -> None:
    for host in ("one", "two"):
        assert two.record(host)["current"] == "1.1.0"
    played = two.play("rollback.yml")
    assert played.code == 0, played.output
    assert [_runs(two, host) for host in ("one", "two")] == ["1.0.0", "1.0.0"]


def test_a_tag_cannot_become_another_release(two: Hosts) -> None:
    current = _runs(two, "one")
    archive = two.folder / f"archives/presage-{current}.tar.gz"
    kept = archive.read_bytes()
    two.pack(current)
    changed = archive.read_bytes() != kept
    played = two.play("rolling.yml", "--limit", "one", presage_tag=current)
    archive.write_bytes(kept)
    assert changed
    assert played.code != 0
    assert "a tag never changes" in played.output


@pytest.fixture(scope="module")
def serving(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Hosts, Played, Path]:
    """A host with Triton and one API, started by their units, on two tiny random layers."""
    from export.candidate import Candidate
    from export.gate import export_files
    from export.version_folder import stage
    from training.registry import get_spec

    folder = tmp_path_factory.mktemp("serving")
    run = toy_model.make_tiny_log_anomaly(folder / "run", 0)
    candidate = export_files(Candidate(get_spec("log_anomaly"), run)).candidate
    hosts = Hosts(
        folder,
        {"one": {}},
        presage_services=["triton", "log-anomaly"],
        presage_triton_http_port=free_port(),
        presage_triton_grpc_port=free_port(),
        presage_triton_metrics_port=free_port(),
        presage_log_anomaly_port=free_port(),
        presage_required_models=["log_anomaly"],
    )
    hosts.pack("1.0.0")
    stage(candidate, hosts.path("one", "/var/lib/presage/model_repository"))
    played = hosts.play("rolling.yml", presage_tag="1.0.0")
    return hosts, played, folder


def test_the_gate_opens_to_a_host_that_serves(serving: tuple[Hosts, Played, Path]) -> None:
    hosts, played, folder = serving
    assert played.code == 0, played.output
    units = {
        name: Unit(hosts.path("one", f"/etc/systemd/system/presage-{name}.service"))
        for name in ("triton", "log-anomaly")
    }
    ports = {
        name: next(w.partition("=")[2] for w in unit.command if w.startswith(word))
        for (name, unit), word in zip(units.items(), ("--http-port", "--port"), strict=True)
    }
    triton_ready = f"http://127.0.0.1:{ports['triton']}/v2/models/log_anomaly/ready"
    api_ready = f"http://127.0.0.1:{ports['log-anomaly']}/readyz"
    with (
        units["triton"].running(triton_ready, folder / "triton.log", 120),
        units["log-anomaly"].running(api_ready, folder / "api.log", 120),
    ):
        played = hosts.play("rolling.yml", presage_tag="1.0.0", presage_health_gate=True)
    assert played.code == 0, played.output
    assert "skipping" not in _task(played, "Ask Triton for every model")
    assert _task(played, "Wait until every service says that it is ready").count("ok: [one]") == 2


def test_a_service_that_is_not_ready_keeps_the_gate_shut(
    serving: tuple[Hosts, Played, Path],
) -> None:
    """Triton answers, the API says 503."""
    hosts, played, folder = serving
    assert played.code == 0, played.output
    unit = Unit(hosts.path("one", "/etc/systemd/system/presage-triton.service"))
    port = next(w.partition("=")[2] for w in unit.command if w.startswith("--http-port"))
    ready = f"http://127.0.0.1:{port}/v2/models/log_anomaly/ready"
    with (
        Endpoint(lambda *_: (503, b"not ready")) as api,
        unit.running(ready, folder / "again.log", 120),
    ):
        played = hosts.play(
            "rolling.yml",
            presage_tag="1.0.0",
            presage_health_gate=True,
            presage_log_anomaly_port=api.port,
        )
    assert played.code != 0
    assert "503" in _task(played, "Wait until every service says that it is ready")


def _task(played: Played, name: str) -> str:
    return next(part for part in played.output.split("\nTASK [") if name in part.split("\n")[0])
