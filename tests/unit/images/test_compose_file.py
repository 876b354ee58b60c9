"""docker-compose.yml against the compose specification, and against what it promises."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from export.container import LIMITS, container_limits

OURS = {
    *("triton", "triton-cpu", "metric-forecast", "log-anomaly", "train-failure-rca"),
    *("forecast-loop", "log-pipeline", "job-diagnosis", "script-exporter"),
}
THEIRS = {"prometheus", "pushgateway", "alertmanager", "grafana", "postgres"}
Compose = dict[str, Any]
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def interpolated(text: str, variables: dict[str, str | None]) -> str:
    """As compose does it: ${A:-default}, ${A:?refusal}."""

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found.groups()
        if variables.get(name):
            return str(variables[name])
        if operator == ":-":
            return str(rest)
        raise KeyError(f"{name}: {rest or 'is not set'}")

    return _VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def compose(repository_root: Path) -> Compose:
    text = (repository_root / "docker-compose.yml").read_text("utf-8")
    variables = dotenv_values(repository_root / ".env.example")
    loaded: Compose = yaml.safe_load(interpolated(text, variables))
    return loaded


def users_of(service: Compose) -> str:
    return str(service.get("user", "")).partition(":")[0]


def faults(compose: Compose) -> list[str]:
    """Every rule of this house that a service breaks, in words."""
    found = []
    for name, service in compose["services"].items():
        image = service.get("image", "")
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        checks = {
            "runs as root": users_of(service) not in ("", "0", "root"),
            "writes its root file system": service.get("read_only") is True,
            "keeps capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
            "may gain privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "is privileged": not service.get("privileged"),
            "sees the host's processes or network": "pid" not in service
            and service.get("network_mode", "none") == "none",
            "has no health check": "tools" in service.get("profiles", [])
            or bool(service.get("healthcheck", {}).get("test")),
            "has no pinned tag": bool(re.search(r"\d", tag)) and tag != "latest",
            "listens beyond the loopback": all(
                str(port).startswith("127.0.0.1:") for port in service.get("ports", [])
            ),
            "has no limit of processes": service.get("pids_limit", 0) > 0,
            "logs without end": "max-size" in service.get("logging", {}).get("options", {}),
            "has a /tmp that runs programs": all(
                "noexec" in mount and "size=" in mount for mount in service.get("tmpfs", ["no"])
            ),
            "has a secret in its environment": not [
                key
                for key in service.get("environment", {})
                if re.search(r"PASSWORD$|SECRET$|TOKEN$|API_KEY$|DATABASE_URL$", key)
            ],
        }
        found += [f"{name} {fault}" for fault, is_well in checks.items() if not is_well]
        for volume in service.get("volumes", []):
            if _is_bind(volume) and not _is_read_only(volume):
                found.append(f"{name} writes to the host's {volume}")
    return found


def _is_bind(volume: Any) -> bool:
    if isinstance(volume, dict):
        return bool(volume["type"] == "bind")
    return volume.startswith((".", "/"))


def _is_read_only(volume: Any) -> bool:
    if isinstance(volume, dict):
        return bool(volume.get("read_only"))
    return bool(volume.endswith(":ro"))


def test_it_is_a_compose_file(repository_root: Path) -> None:
    pytest.importorskip("check_jsonschema")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
        ],
        cwd=repository_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_there_and_hardened(compose: Compose) -> None:
    assert set(compose["services"]) == OURS | THEIRS | {"tokens"}
    assert faults(compose) == []


def _set(key: str, value: Any) -> Callable[[Compose], None]:
    def change(service: Compose) -> None:
        service[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set("user", "0:0"), "runs as root"),
        (lambda service: service.pop("user"), "runs as root"),
        (_set("read_only", False), "writes its root file system"),
        (_set("cap_drop", []), "keeps capabilities"),
        (_set("cap_add", ["SYS_ADMIN"]), "keeps capabilities"),
        (_set("security_opt", []), "may gain privileges"),
        (_set("privileged", True), "is privileged"),
        (_set("pid", "host"), "sees the host's processes"),
        (_set("network_mode", "host"), "sees the host's processes"),
        (lambda service: service.pop("healthcheck"), "has no health check"),
        (_set("image", "docker.io/prom/prometheus:latest"), "has no pinned tag"),
        (_set("image", "docker.io/prom/prometheus"), "has no pinned tag"),
        (_set("ports", ["9090:9090"]), "listens beyond the loopback"),
        (_set("pids_limit", 0), "has no limit of processes"),
        (_set("logging", {}), "logs without end"),
        (_set("tmpfs", ["/tmp"]), "has a /tmp that runs programs"),
        (_set("environment", {"POSTGRES_PASSWORD": "x"}), "has a secret in its environment"),
        (_set("volumes", ["/etc:/etc"]), "writes to the host's /etc:/etc"),
    ],
)
def test_the_rules_notice(compose: Compose, change: Callable[[Compose], None], fault: str) -> None:
    broken = copy.deepcopy(compose)
    change(broken["services"]["prometheus"])
    assert [line for line in faults(broken) if line.startswith(f"prometheus {fault}")]


def test_what_it_names_is_declared(compose: Compose, repository_root: Path) -> None:
    services = compose["services"]
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set()}
    for name, service in services.items():
        used["networks"] |= set(service.get("networks", []))
        used["secrets"] |= set(service.get("secrets", []))
        for volume in service.get("volumes", []):
            if not _is_bind(volume):
                source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
                used["volumes"].add(source)
        for other, waits in service.get("depends_on", {}).items():
            assert waits["condition"] == "service_healthy", name
            assert services[other]["healthcheck"]["test"], f"{name} waits for {other}"
            # What only some profile starts may be absent.
            assert waits.get("required", True) is ("profiles" not in services[other])
            shared = set(service["networks"]) & set(services[other]["networks"])
            assert shared, f"{name} waits for {other} and cannot reach it"
    for kind, names in used.items():
        assert names == set(compose[kind]), kind


def test_hosts_in_settings_are_services_within_reach(compose: Compose) -> None:
    """A URL of another service names one, at its port, in a network of both."""
    services = compose["services"]
    aliases = {"triton": services["triton-cpu"]}
    ports = {"triton": {8001, 8000}, "postgres": {5432}}
    seen = 0
    for name, service in services.items():
        words = [*service.get("environment", {}).values(), *service.get("command", [])]
        for host, port in re.findall(r"://([\w.-]+):(\d+)", " ".join(map(str, words))):
            other = aliases.get(host) or services[host]
            assert set(service["networks"]) & set(other["networks"]), f"{name} → {host}"
            known = ports.get(host) or {int(p.split(":")[2]) for p in other["ports"]}
            assert int(port) in known, f"{name} → {host}:{port}"
            seen += 1
    assert seen >= 10


def test_files_that_it_mounts_are_here(compose: Compose, repository_root: Path) -> None:
    if not (repository_root / "deploy/grafana").is_dir():
        pytest.skip("deploy/grafana and deploy/prometheus/targets.compose are not here yet")
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            if not _is_bind(volume):
                continue
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            assert (repository_root / source).exists(), source


def test_published_ports_are_each_published_once(compose: Compose) -> None:
    services = compose["services"]
    assert services["triton"]["ports"] == services["triton-cpu"]["ports"]
    ports = [
        port.split(":")[1]
        for name, service in services.items()
        if name != "triton-cpu"
        for port in service.get("ports", [])
    ]
    assert len(ports) == len(set(ports))
    assert {"9000", "9001", "9002", "8001", "8002", "8003", "8004", "9108"} <= set(ports)


def test_one_triton_a_profile(compose: Compose) -> None:
    services = compose["services"]
    assert services["triton"]["profiles"] == ["gpu"]
    assert services["triton-cpu"]["profiles"] == ["cpu"]
    for name in ("triton", "triton-cpu"):
        service = services[name]
        assert service["networks"] == {"serving": {"aliases": ["triton"]}}
        assert service["shm_size"] == "1gb"
        (models,) = service["volumes"]
        assert (models["target"], models["read_only"]) == ("/models", True)
        assert models["bind"] == {"create_host_path": False}
    reserved = services["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved[0]["capabilities"] == ["gpu"]


def test_no_model_is_named(repository_root: Path) -> None:
    """A fourth model needs no edit here: the images ask the repository."""
    text = (repository_root / "docker-compose.yml").read_text("utf-8")
    assert "--load-model" not in text
    for folder in (repository_root / "model_repository").glob("*/config.pbtxt"):
        assert folder.parent.name not in text


def test_the_container_is_one_that_exports_are_checked_against(repository_root: Path) -> None:
    assert container_limits(repository_root / "docker-compose.yml") in LIMITS.values()


def test_versions_stand_once(compose: Compose, repository_root: Path) -> None:
    """.env.example repeats docker-compose.yml's defaults, and the version of pyproject.toml."""
    text = (repository_root / "docker-compose.yml").read_text("utf-8")
    defaults: dict[str, set[str]] = {}
    for name, operator, rest in _VARIABLE.findall(text):
        if operator == ":-":
            defaults.setdefault(name, set()).add(rest)
    for name, value in dotenv_values(repository_root / ".env.example").items():
        if name in defaults:
            assert defaults[name] == {value}, name
    images = {s["image"] for n, s in compose["services"].items() if n in OURS | {"tokens"}}
    assert {image.rpartition(":")[2] for image in images} == {_version(repository_root)}
    with pytest.raises(KeyError, match="PRESAGE_TAG"):
        interpolated(text, {})


def _version(root: Path) -> str:
    (version,) = re.findall(r'^version = "(.+)"', (root / "pyproject.toml").read_text(), re.M)
    return str(version)


def test_secrets_are_files_that_the_script_makes(
    compose: Compose, repository_root: Path, tmp_path: Path
) -> None:
    script = repository_root / "deploy/docker/make_secrets.sh"
    folder = tmp_path / "secrets"
    for _ in range(2):
        said = subprocess.run(
            ["bash", str(script), str(folder)], capture_output=True, text=True, check=True
        ).stdout
    assert "made" not in said, "the second run makes them anew"
    assert folder.stat().st_mode & 0o777 == 0o700
    wanted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert {path.name for path in folder.iterdir()} == wanted
    password = (folder / "postgres_password").read_text().strip()
    assert re.fullmatch(r"[A-Za-z0-9]{32}", password)
    url = (folder / "presage_jobs_database_url").read_text().strip()
    assert url == f"postgresql://presage:{password}@postgres:5432/presage"
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, "containers run as other users"
    ignored = (repository_root / ".gitignore").read_text().split()
    assert {".env", "deploy/docker/secrets/"} <= set(ignored)
