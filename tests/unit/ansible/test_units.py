"""The rendered units, read by systemd itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.fixtures.ansible_hosts import PLAYBOOKS, ROOT, Unit, run_ansible

# One worker renders them for all.
SERVICES = (
    "triton",
    "metric-forecast",
    "log-anomaly",
    "train-failure-rca",
    "forecast-loop",
    "log-pipeline",
    "job-diagnosis",
)
UNITS = [*(f"presage-{name}" for name in SERVICES), "script-exporter"]
# systemd-analyze security: 0 is closed to everything, 10 is open; a plain unit gets 9.6.
LARGEST_EXPOSURE = {"script-exporter": 5.0}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Unit]:
    folder = tmp_path_factory.mktemp("units")
    for home in ("presage", "script_exporter"):
        release = folder / f"host/opt/{home}/releases/1.0.0"
        release.mkdir(parents=True)
        (release / "venv").symlink_to(sys.prefix)
    given = {
        "roles": str(PLAYBOOKS / "roles"),
        "presage_prefix": str(folder / "host"),
        "presage_runtime": "systemd",
        "presage_tag": "1.0.0",
        "presage_services": list(SERVICES),
        "output": str(folder / "all"),
        "ansible_python_interpreter": sys.executable,
        "presage_environment": {"log-anomaly": {"PRESAGE_PROMETHEUS": '{"a": "http://b/%20$c"}'}},
        "presage_systemd_readable": {"job-diagnosis": ["/home/jobs/logs"]},
    }
    done = run_ansible(
        "ansible-playbook",
        *("-i", "localhost,", str(ROOT / "tests/fixtures/ansible/render_units.yml")),
        *("-e", json.dumps(given)),
        home=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for part in re.split(r"^==== ", (folder / "all").read_text("utf-8"), flags=re.MULTILINE)[1:]:
        name, _, text = part.partition("\n")
        (folder / name).write_text(text, "utf-8")
        found[name.removesuffix(".service")] = Unit(folder / name)
    assert list(found) == UNITS
    return found


def _systemd_analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(units: dict[str, Unit]) -> None:
    done = _systemd_analyze("verify", *(str(unit.file) for unit in units.values()))
    # A word that systemd does not know is only a warning to it.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_closed(units: dict[str, Unit], name: str) -> None:
    largest = LARGEST_EXPOSURE.get(name, 2.0)
    done = _systemd_analyze(
        "security", "--offline=true", f"--threshold={largest * 10:g}", str(units[name].file)
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("name", UNITS)
def test_it_drains_before_it_is_killed(units: dict[str, Unit], name: str) -> None:
    """SIGTERM to the main process alone, and longer than the program takes for it."""
    unit = units[name]
    assert unit.one("KillMode") == "mixed"
    drain_seconds = {"presage-triton": 50, "script-exporter": 10}.get(name, 40)
    assert float(unit.one("TimeoutStopSec")) > drain_seconds
    assert "WatchdogSec" not in unit.settings


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_the_release_and_nobody(units: dict[str, Unit], name: str) -> None:
    unit = units[f"presage-{name}"]
    assert unit.one("User") == "presage"
    assert unit.one("CapabilityBoundingSet") == ""
    assert "/releases/1.0.0/" in unit.command[0]
    assert "/current/" not in unit.file.read_text()


@pytest.mark.parametrize("name", UNITS)
def test_the_program_knows_its_words(units: dict[str, Unit], name: str) -> None:
    """argparse refuses a flag that is not there before it looks at --help at the end."""
    command = [sys.executable, *units[name].command[1:]]
    done = subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


def test_triton_tells_nobody(units: dict[str, Unit]) -> None:
    """ONNX Runtime would send telemetry."""
    triton = units["presage-triton"]
    assert triton.environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert (triton.one("IPAddressDeny"), triton.one("IPAddressAllow")) == ("any", "localhost")


def test_what_is_written_there_arrives_as_it_was(units: dict[str, Unit]) -> None:
    environment = units["presage-log-anomaly"].environment
    assert json.loads(environment["PRESAGE_PROMETHEUS"]) == {"a": "http://b/%20$c"}
    jobs = units["presage-job-diagnosis"]
    assert jobs.one("ProtectHome") == "tmpfs"
    assert jobs.one("BindReadOnlyPaths") == "/home/jobs/logs"
