"""Paths that probes and monitors ask for are there on the real programs, started as the pods do."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.fixtures import manifests
from tests.fixtures.endpoints import free_port
from tests.fixtures.manifests import Document, Pod
from tests.fixtures.service_process import ServiceProcess


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return manifests.kustomize(manifests.K8S / "overlays/cpu")


def _paths(documents: list[Document], pod: Pod) -> set[str]:
    probes = (pod.main[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))
    paths = {probe["httpGet"]["path"] for probe in probes}
    for document in documents:
        if document["kind"] in {"PodMonitor", "ServiceMonitor"}:
            spec = document["spec"]
            if spec["selector"]["matchLabels"].items() <= pod.labels.items():
                ends = spec.get("podMetricsEndpoints") or spec["endpoints"]
                paths |= {end["path"] for end in ends}
    return paths


def _words(pod: Pod, folder: Path, port: int) -> list[str]:
    """The container's own words, with this test's folders and port, on the loopback."""
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "x"\napis = ["all"]\nsha256 = "{"0" * 64}"\n')
    tokens.chmod(0o600)
    changed = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--listen": f"127.0.0.1:{port}",
        "--tokens-file": str(tokens),
        "--spool": str(folder / "spool"),
        "--json-lines": str(folder / "anomalies.jsonl"),
        "--url": "grpc://127.0.0.1:1",
        "--triton-url": "grpc://127.0.0.1:1",
        "--config": str(folder / "forecast_loop.toml"),
    }
    return [
        f"{flag}={changed[flag]}" if (flag := word.partition("=")[0]) in changed else word
        for word in pod.main["args"]
    ]


@pytest.mark.parametrize(
    "name", ["metric-forecast", "forecast-loop", "log-pipeline", "job-diagnosis"]
)
def test_paths_are_there(documents: list[Document], name: str, tmp_path: Path) -> None:
    (pod,) = (p for p in manifests.pods(documents) if p.name == name)
    process = ServiceProcess(tmp_path)
    if name == "forecast-loop":
        text = manifests.config_map(documents, "forecast-loop")["forecast_loop.toml"]
        text = text.replace("0.0.0.0:9108", f"127.0.0.1:{process.port}")
        text = text.replace("/var/lib/presage", str(tmp_path))
        (tmp_path / "forecast_loop.toml").write_text(text)
    process.words = _words(pod, tmp_path, process.port)
    process.environment = {
        "PRESAGE_JOBS_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.sqlite",
        **{v["name"]: v["value"] for v in pod.main.get("env", []) if "SECRETS" not in v["name"]},
    }
    paths = _paths(documents, pod)
    assert "/metrics" in paths
    with process:
        for path in paths:
            # No model server is there: /readyz may say so, but not that there is no such page.
            assert process.http.get(path).status_code in {200, 503}
        assert process.http.get("/no-such-page").status_code in {401, 404}


def test_paths_of_the_exporter_are_there(documents: list[Document], tmp_path: Path) -> None:
    from script_exporter.exporter import Exporter
    from script_exporter.server import PageServer

    (pod,) = (p for p in manifests.pods(documents) if p.name == "script-exporter")
    config = manifests.config_map(documents, "script-exporter")["config.yml"]
    (tmp_path / "config.yml").write_text(config.replace("/var/lib/presage", str(tmp_path)))
    exporter = Exporter(tmp_path / "config.yml")
    with PageServer(("127.0.0.1", free_port()), exporter.pages()) as server:
        for path in _paths(documents, pod):
            assert httpx.get(server.url + path, trust_env=False).status_code == 200
