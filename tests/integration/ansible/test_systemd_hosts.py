"""The role for hosts without Docker, run for real below a folder: what it leaves there runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fixtures.ansible_hosts import Hosts, Played, Unit

UNIT = "/etc/systemd/system/presage-log-pipeline.service"


def test_a_release_is_put_in_place(installed: tuple[Hosts, Played]) -> None:
    hosts, played = installed
    assert played.code == 0, played.output
    release = hosts.path("one", "/opt/presage/releases/1.0.0")
    assert hosts.path("one", "/opt/presage/current").resolve() == release.resolve()
    assert (release / "app/TAG").read_text() == "1.0.0"
    assert hosts.record("one") == {"current": "1.0.0", "healthy": ["1.0.0"]}
    secrets = hosts.path("one", "/etc/presage/secrets")
    assert secrets.stat().st_mode & 0o007 == 0
    # Without a service manager nothing is started.
    assert "Restart what has changed" not in played.changed("one")


def test_the_installed_service_runs_by_its_unit(
    installed: tuple[Hosts, Played], tmp_path: Path
) -> None:
    hosts, played = installed
    assert played.code == 0, played.output
    unit = Unit(hosts.path("one", UNIT))
    address = unit.command[unit.command.index("serve") + 1].removeprefix("--listen=")
    with unit.running(f"http://{address}/readyz", tmp_path / "log") as pid:
        release = hosts.path("one", "/opt/presage/releases/1.0.0")
        assert Path(f"/proc/{pid}/cwd").readlink() == (
            hosts.path("one", "/var/lib/presage/log-pipeline").resolve()
        )
        imported = subprocess.run(
            [unit.command[0], "-c", "import services; print(services.__file__)"],
            cwd=unit.one("WorkingDirectory"),
            env=unit.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert Path(imported).is_relative_to(release / "app")
    # What it keeps lies in its own folder, nothing in the release.
    assert any(hosts.path("one", "/var/lib/presage/log-pipeline/spool").iterdir())


def test_people_have_a_command(installed: tuple[Hosts, Played]) -> None:
    hosts, played = installed
    assert played.code == 0, played.output
    command = hosts.path("one", "/opt/presage/current/presage")
    done = subprocess.run(
        [command, "services", "--help"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "log_pipeline" in done.stdout
