"""Every image of deploy/docker, built by an engine and run as docker-compose.yml says.

Each instruction of each Dockerfile is executed, but those on NVIDIA's base, which is nowhere to be
had here. A service has what its requirements install and nothing more; its file system cannot be
written, it is nobody, and it has no capabilities. The health check is the image's own.
"""

from __future__ import annotations

import json
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from export.candidate import Candidate
from export.gate import export_files
from export.version_folder import stage
from tests.fixtures.container_engine import Engine, make_engine
from tests.unit.images.test_compose_file import interpolated
from training.registry import get_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
NETWORK = "presage"
PATIENCE_SECONDS = 180
# Service → file, target. Of the gateway's targets one is built for its weight, all are run.
IMAGES = {
    "triton-cpu": ("triton-cpu", None),
    "metric-forecast": ("gateway", "metric-forecast"),
    "log-anomaly": ("gateway", "log-anomaly"),
    "train-failure-rca": ("gateway", "train-failure-rca"),
    "forecast-loop": ("forecast-loop", None),
    "log-pipeline": ("log-pipeline", None),
    "job-diagnosis": ("job-diagnosis", None),
    "script-exporter": ("script-exporter", None),
}


@pytest.fixture(scope="module")
def engine(repository_root: Path) -> Iterator[Engine]:
    made = make_engine(repository_root / "build/images")
    try:
        made.close()  # what a killed run left
        made.make_base()
        made.podman("network", "create", NETWORK)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def built(engine: Engine, repository_root: Path) -> dict[str, str]:
    """Service → image."""
    tags = {}
    for service, (file, target) in IMAGES.items():
        tags[service] = f"localhost/presage/{service}:test"
        dockerfile = repository_root / f"deploy/docker/{file}.Dockerfile"
        engine.build(repository_root, dockerfile, tags[service], target)
    return tags


@pytest.fixture(scope="module")
def compose(repository_root: Path) -> dict[str, Any]:
    text = (repository_root / "docker-compose.yml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(interpolated(text, {"PRESAGE_TAG": "test"}))
    return loaded


@pytest.fixture(scope="module")
def models(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real front of log_anomaly before a tiny classifier, readable by everybody."""
    root = tmp_path_factory.mktemp("models")
    run = toy_model.make_tiny_log_anomaly(tmp_path_factory.mktemp("run"), 0)
    stage(export_files(Candidate(get_spec("log_anomaly"), run)).candidate, root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="module")
def stack(
    engine: Engine,
    built: dict[str, str],
    compose: dict[str, Any],
    models: Path,
    repository_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Every service of ours, started in order; the token that was made for them."""
    secret = tmp_path_factory.mktemp("secrets") / "presage_jobs_database_url"
    secret.write_text("sqlite:////var/lib/presage/from_secret.sqlite\n")
    secret.chmod(0o644)
    binds = {
        "/models": str(models),
        "/etc/presage/forecast_loop.toml": str(
            repository_root / "deploy/prometheus/forecast_loop.toml"
        ),
        "/etc/presage/script_exporter.yml": str(
            repository_root / "deploy/docker/script_exporter.yml"
        ),
    }
    services = compose["services"]
    tokens = services["tokens"]
    made = engine.podman(
        *("run", "--rm", "--network", "none", "--user", tokens["user"], "--read-only"),
        *("--volume", "tokens:/var/lib/presage"),
        *("--env", f"PRESAGE_TOKENS_FILE={tokens['environment']['PRESAGE_TOKENS_FILE']}"),
        *("--entrypoint", tokens["entrypoint"][0], built["metric-forecast"]),
        *(*tokens["entrypoint"][1:], "add", "alice", "--api", "all"),
    )
    for name in IMAGES:
        engine.run_service(
            name,
            services[name],
            image=built[name],
            network=NETWORK,
            binds=binds,
            secrets={"presage_jobs_database_url": secret},
        )
        if name == "triton-cpu":
            wait_healthy(engine, name)
    return {"token": made.stdout.strip()}


def wait_healthy(engine: Engine, name: str) -> None:
    """By the health check that the image carries."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while engine.podman("healthcheck", "run", name, check=False).returncode:
        state = engine.inspect("container", name)["State"]
        log = engine.podman("logs", name, check=False)
        assert state["Running"], f"{name} ended: {log.stdout[-2000:]}{log.stderr[-2000:]}"
        assert time.monotonic() < deadline, f"{name}: {log.stdout[-2000:]}{log.stderr[-2000:]}"
        time.sleep(1)


def ask(
    engine: Engine, name: str, port: int, path: str, body: Any = None, token: str = ""
) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    url = f"http://{engine.address(name, NETWORK)}:{port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        read: bytes = answer.read()
        return read


def test_images_keep_their_budgets(
    engine: Engine, built: dict[str, str], repository_root: Path
) -> None:
    budgets = tomllib.loads((repository_root / "deploy/docker/budgets.toml").read_text("utf-8"))
    base = engine.size_bytes(engine.base)
    weights = {
        file: (engine.size_bytes(built[service]) - base) / 1e6
        for service, (file, _) in IMAGES.items()
    }
    print("\n".join(f"{file}: {weight:.0f} MB" for file, weight in weights.items()))
    assert {f: w for f, w in weights.items() if w > budgets[f]["budget"]} == {}


@pytest.mark.parametrize(
    "name", ["forecast-loop", "log-pipeline", "job-diagnosis", "script-exporter", "log-anomaly"]
)
def test_it_is_healthy_with_what_its_requirements_install(
    engine: Engine, stack: dict[str, str], name: str
) -> None:
    if name == "job-diagnosis":
        # Its model is not among the tiny ones: ready is what it cannot be, but it serves.
        assert ask(engine, name, 8004, "/healthz")
        engine.podman("exec", name, "test", "-s", "/var/lib/presage/from_secret.sqlite")
        return
    wait_healthy(engine, name)


@pytest.mark.parametrize("name", IMAGES)
def test_it_is_nobody_and_can_change_nothing(
    engine: Engine, stack: dict[str, str], name: str
) -> None:
    program = (
        "import os, pathlib\n"
        "told = dict(l.split(':', 1) for l in open('/proc/1/status') if ':' in l)\n"
        "for place in ('/app/x', '/opt/x', '/etc/x', '/models/x', '/usr/x'):\n"
        "    try:\n        open(place, 'w')\n        print('WROTE', place)\n"
        "    except OSError: pass\n"
        "print(told['Uid'].split()[0], told['CapEff'].strip(), told['CapBnd'].strip(),"
        " told['NoNewPrivs'].strip())\n"
    )
    said = engine.podman("exec", name, "python", "-c", program).stdout.strip()
    assert said == "10001 0000000000000000 0000000000000000 1"


@pytest.mark.parametrize("name", IMAGES)
def test_it_holds_no_torch_no_pip_and_none_of_the_trainings(
    engine: Engine, stack: dict[str, str], name: str
) -> None:
    program = (
        "import importlib.util as u\n"
        "names = ('torch', 'transformers', 'pip', 'setuptools', 'training', 'export', 'tests')\n"
        "print([n for n in names if u.find_spec(n)])"
    )
    assert engine.podman("exec", name, "python", "-c", program).stdout.strip() == "[]"


def test_a_line_is_judged_through_gateway_and_triton(engine: Engine, stack: dict[str, str]) -> None:
    wait_healthy(engine, "log-anomaly")
    line = {"text": "machine check interrupt 7 L2 DCU read error"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(engine, "log-anomaly", 8002, "/predict", line)
    answer = json.loads(ask(engine, "log-anomaly", 8002, "/predict", line, stack["token"]))
    assert answer["label"] in ("normal", "anomaly")
    # Of a model that is not served its API says so, and is not healthy.
    assert engine.podman("healthcheck", "run", "metric-forecast", check=False).returncode != 0


def test_lines_go_through_the_pipeline(engine: Engine, stack: dict[str, str]) -> None:
    wait_healthy(engine, "log-pipeline")
    taken = json.loads(ask(engine, "log-pipeline", 9200, "/lines", {"message": "link is down"}))
    assert taken == {"accepted": 1, "rejected": []} or taken["accepted"] == 1


def test_the_hosts_metrics_come_out_of_the_exporter(engine: Engine, stack: dict[str, str]) -> None:
    wait_healthy(engine, "script-exporter")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while b"node_processes_state" not in (page := ask(engine, "script-exporter", 5535, "/metrics")):
        assert time.monotonic() < deadline, page[-2000:]
        time.sleep(1)
    log = json.loads(ask(engine, "script-exporter", 5535, "/health"))["details"]
    assert not [row for row in log.values() if "denied" in row["stderr_last_line"]]


@pytest.mark.parametrize("name", list(reversed(IMAGES)))
def test_it_drains_when_told_to_stop(engine: Engine, stack: dict[str, str], name: str) -> None:
    engine.podman("stop", "--time", "60", name)
    assert engine.inspect("container", name)["State"]["ExitCode"] == 0
