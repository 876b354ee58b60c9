"""What is committed below deploy/ansible, read by Ansible's own programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.ansible_hosts import PLAYBOOKS, run_ansible

BOOKS = sorted(path.name for path in PLAYBOOKS.glob("*.yml"))


def test_every_playbook_is_read(tmp_path: Path) -> None:
    """With the inventories that are committed, secrets by reference and all."""
    assert {"site.yml", "rolling.yml", "rollback.yml", "exporter.yml", "models.yml"} == set(BOOKS)
    inventories = [
        word
        for name in ("staging", "production")
        for word in ("-i", str(PLAYBOOKS / f"inventories/{name}/hosts.yml"))
    ]
    done = run_ansible(
        "ansible-playbook",
        *("--syntax-check", *inventories, *(str(PLAYBOOKS / name) for name in BOOKS)),
        home=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("playbook: ") == len(BOOKS)


@pytest.mark.timeout(900)
def test_the_linter_finds_nothing(tmp_path: Path) -> None:
    done = run_ansible("ansible-lint", "--offline", "--nocolor", home=tmp_path, cwd=PLAYBOOKS)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed" in said
    found = re.search(r"(\d+) failure\(s\), (\d+) warning\(s\) in (\d+) files", said)
    assert found is not None
    assert (found[1], found[2]) == ("0", "0")
    assert int(found[3]) > 40


@pytest.mark.parametrize("name", ["staging", "production"])
def test_every_host_has_a_runtime_and_a_canary_goes_first(name: str, tmp_path: Path) -> None:
    found = _inventory(tmp_path, PLAYBOOKS / f"inventories/{name}/hosts.yml")
    variables = found["_meta"]["hostvars"]
    hosts = {
        host
        for group in found["presage"]["children"]
        for host in found.get(group, {}).get("hosts", [])
    }
    assert hosts
    assert {variables[host]["presage_runtime"] for host in hosts} <= {"docker", "systemd"}
    assert set(found["presage_canary"]["hosts"]) <= hosts
    # A secret is a reference.
    for file in (PLAYBOOKS / f"inventories/{name}/group_vars").glob("*.yml"):
        for value in (yaml.safe_load(file.read_text()).get("presage_secrets") or {}).values():
            assert "{{ vault_" in value


def test_a_role_is_told_what_the_cmdb_says(tmp_path: Path) -> None:
    """The names of discovery's inventory are those of the script exporter's role."""
    from script_exporter.discovery.cmdb import Cmdb
    from script_exporter.discovery.settings import load_settings
    from script_exporter.discovery.targets import assign, inventory

    settings = load_settings(PLAYBOOKS.parent / "script_exporter/discovery.yml")
    cmdb = Cmdb(settings.cmdb, tmp_path / "state.json")
    assert cmdb.refresh()
    file = tmp_path / "nodes.yml"
    file.write_text(inventory(assign(cmdb.hosts or (), settings), 5535), "utf-8")
    found = _inventory(tmp_path, file)
    defaults = yaml.safe_load((PLAYBOOKS / "roles/script_exporter/defaults/main.yml").read_text())
    for facts in found["_meta"]["hostvars"].values():
        assert {"script_exporter_collectors", "script_exporter_port"} <= set(facts) & set(defaults)
        assert set(facts["script_exporter_collectors"]) <= set(
            defaults["script_exporter_known_collectors"]
        )
    assert "collector_nic" in found


def _inventory(home: Path, file: Path) -> dict[str, Any]:
    done = run_ansible("ansible-inventory", "-i", str(file), "--list", home=home)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
