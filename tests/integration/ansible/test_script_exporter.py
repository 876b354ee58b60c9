"""The script exporter on nodes that the CMDB names, put there and started by its unit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.fixtures.ansible_hosts import ROOT, Hosts, Played, Unit
from tests.fixtures.endpoints import free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HOME = "/opt/script_exporter"
UNIT = "/etc/systemd/system/script-exporter.service"
NODE = "gpu-a100-001"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hosts, Path]:
    """The CMDB's inventory beside this test's variables, and a folder of the site's scripts."""
    folder = tmp_path_factory.mktemp("nodes")
    done = subprocess.run(
        [sys.executable, "-m", "script_exporter", "discover", "--print", "inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "nodes.yml").write_text(done.stdout, "utf-8")
    nodes = yaml.safe_load(done.stdout)["all"]["hosts"]
    scripts = folder / "scripts"
    scripts.mkdir()
    (scripts / "site.sh").write_text("echo site_answers 1\n", "utf-8")
    digest = hashlib.sha256((scripts / "site.sh").read_bytes()).hexdigest()
    (scripts / "SHA256SUMS").write_text(f"{digest}  site.sh\n", "utf-8")
    hosts = Hosts(
        folder,
        {name: {"ansible_host": "127.0.0.1"} for name in nodes},
        script_exporter_scripts=str(scripts),
        script_exporter_own_collectors={
            "site": {"script_path": "site.sh", "script_type": "shell", "interval": 1}
        },
        script_exporter_listen=f"127.0.0.1:{free_port()}",
    )
    hosts.pack("1.0.0", "1.1.0")
    return hosts, scripts


def _page_with(name: str, url: str) -> str:
    text = httpx.get(url, trust_env=False).text
    return text if name in text else ""


def _play(hosts: Hosts, tag: str, **extra: object) -> Played:
    return hosts.play(
        "exporter.yml",
        *("-i", str(hosts.folder / "nodes.yml"), "-i", str(hosts.inventory)),
        presage_tag=tag,
        target="card_a100",
        script_exporter_collectors=["nic", "site"],
        **extra,
    )


def test_a_card_s_nodes_get_their_collectors_and_nobody_else(site: tuple[Hosts, Path]) -> None:
    hosts, scripts = site
    played = _play(hosts, "1.0.0")
    assert played.code == 0, played.output
    assert set(played.recap) == {NODE}
    again = _play(hosts, "1.0.0")
    assert again.code == 0, again.output
    assert again.recap[NODE]["changed"] == 0, again.changed(NODE)

    unit = Unit(hosts.path(NODE, UNIT))
    config = yaml.safe_load(hosts.path(NODE, "/etc/script_exporter/config.yml").read_text())
    address = config["web"]["listen_address"]
    with unit.running(f"http://{address}/-/healthy", scripts.parent / "exporter.log"):
        page = wait_until(
            lambda: _page_with("site_answers", f"http://{address}/metrics"),
            seconds=60,
            what="the site's own script",
            every=0.5,
        )
        assert "site_answers 1\n" in page
        # With the gate, which asks for exactly these collectors.
        gated = _play(hosts, "1.0.0", script_exporter_health_gate=True)
        assert gated.code == 0, gated.output
    assert not hosts.path("gpu-a800-001", HOME).exists()


def test_a_script_that_was_changed_on_the_way_goes_nowhere(site: tuple[Hosts, Path]) -> None:
    hosts, scripts = site
    kept = (scripts / "site.sh").read_text()
    (scripts / "site.sh").write_text(kept + "curl http://elsewhere\n", "utf-8")
    played = _play(hosts, "1.1.0")
    (scripts / "site.sh").write_text(kept, "utf-8")
    assert played.code != 0
    assert "Check the site's scripts before they go anywhere" in played.output
    assert hosts.path(NODE, f"{HOME}/scripts/site.sh").read_text() == kept
    assert hosts.record(NODE, HOME)["current"] == "1.0.0"


def test_a_configuration_that_the_exporter_refuses_replaces_nothing(
    site: tuple[Hosts, Path],
) -> None:
    hosts, _ = site
    file = hosts.path(NODE, "/etc/script_exporter/config.yml")
    before = file.read_text()
    played = _play(hosts, "1.0.0", script_exporter_global={"max_concurrent": 0})
    assert played.code != 0
    assert "max_concurrent" in played.output
    assert file.read_text() == before


def test_it_goes_back_to_the_release_before(site: tuple[Hosts, Path]) -> None:
    hosts, _ = site
    played = _play(hosts, "1.1.0")
    assert played.code == 0, played.output
    assert "/releases/1.1.0/" in Unit(hosts.path(NODE, UNIT)).command[0]
    back = _play(hosts, "1.1.0", script_exporter_rollback=True)
    assert back.code == 0, back.output
    assert "/releases/1.0.0/" in Unit(hosts.path(NODE, UNIT)).command[0]
    assert hosts.record(NODE, HOME) == {"current": "1.0.0", "healthy": ["1.1.0", "1.0.0"]}
