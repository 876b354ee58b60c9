"""Model versions brought to a host: proven, complete, loaded, or taken back."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from embedded_triton import EmbeddedServer, ServerSettings
from tests.fixtures.ansible_hosts import Hosts
from tests.fixtures.endpoints import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        importlib.util.find_spec("contract.proven_files") is None,
        reason="no contract.proven_files in this checkout",
    ),
]
GRAPH, FRONT = "log_anomaly_classifier", "log_anomaly"


@pytest.fixture(scope="module")
def published(toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of two tiny random layers, each with a report of its hashes."""
    import json

    from contract.manifest import sha256_of
    from export.candidate import GOLDEN_FILE, REPORT_FILE, Candidate, sha256_of_json
    from export.gate import export_files
    from export.version_folder import stage
    from training.registry import get_spec

    folder = tmp_path_factory.mktemp("published")
    for version in (1, 2):
        run = toy_model.make_tiny_log_anomaly(folder / f"run{version}", version)
        candidate = export_files(Candidate(get_spec("log_anomaly"), run)).candidate
        stage_at = folder / f"staged{version}"
        stage(candidate, stage_at, version)
        for name in (GRAPH, FRONT):
            target = folder / "repository" / name
            shutil.copytree(stage_at / name, target, dirs_exist_ok=True)
            manifest = json.loads((target / str(version) / "manifest.json").read_text())
            files = {
                file.name: sha256_of(file)
                for file in (target / str(version)).iterdir()
                if file.is_file() and file.name not in (GOLDEN_FILE, REPORT_FILE)
            }
            files["labels"] = sha256_of_json(manifest["labels"])
            files["thresholds"] = sha256_of_json(manifest["thresholds"])
            (target / str(version) / REPORT_FILE).write_text(json.dumps({"files": files}))
    return folder / "repository"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Hosts:
    return Hosts(
        tmp_path_factory.mktemp("models"),
        {"one": {}},
        model_repository_source=str(published),
        presage_triton_http_port=free_port(),
        presage_services=["triton"],
    )


def _versions(host: Hosts, model: str) -> list[str]:
    folder = host.path("one", f"/var/lib/presage/model_repository/{model}")
    return sorted(path.name for path in folder.iterdir() if path.name.isdigit())


def test_versions_are_brought_loaded_and_withdrawn(
    host: Hosts, published: Path, tmp_path: Path
) -> None:
    newer = {name: published / name / "2" for name in (GRAPH, FRONT)}
    for name, path in newer.items():
        path.rename(tmp_path / name)
    played = host.play("models.yml")
    assert played.code == 0, played.output
    again = host.play("models.yml")
    assert (again.code, again.recap["one"]["changed"]) == (0, 0), again.output
    for name, path in newer.items():
        (tmp_path / name).rename(path)

    repository = host.path("one", "/var/lib/presage/model_repository")
    port = free_port()
    server = EmbeddedServer(ServerSettings(repository, port, 0, 0, run_folder=tmp_path / "run"))
    server.start()
    try:
        asked = {"presage_triton_http_port": port}
        played = host.play("models.yml", **asked)
        assert played.code == 0, played.output
        assert _serving(server) == {GRAPH: "2", FRONT: "2"}
        assert _versions(host, FRONT) == ["1", "2"]

        names = [GRAPH, FRONT]
        back = host.play(
            "models.yml", model_repository_rollback=True, model_repository_models=names, **asked
        )
        assert back.code == 0, back.output
        assert _serving(server) == {GRAPH: "1", FRONT: "1"}
        assert (repository / f".withdrawn/{FRONT}/2").is_dir()

        # A version that no server loads: its files are as they were hashed, and no model.
        _break(published / GRAPH / "2")
        played = host.play("models.yml", **asked)
        assert played.code != 0
        assert "the versions before serve" in played.output
        assert _serving(server) == {GRAPH: "1", FRONT: "1"}
        assert _versions(host, GRAPH) == ["1"]
    finally:
        server.stop()


def test_a_file_that_was_not_proven_goes_nowhere(host: Hosts, published: Path) -> None:
    manifest = published / GRAPH / "1/manifest.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(kept + b"\n")
    played = host.play("models.yml")
    manifest.write_bytes(kept)
    assert played.code != 0
    assert "is not the one that was proven" in played.output


def _serving(server: EmbeddedServer) -> dict[str, str]:
    """The newest version of each model that is ready."""
    found: dict[str, str] = {}
    for row in server.control.index():
        if row.get("state") == "READY":
            found[row["name"]] = max(row["version"], found.get(row["name"], ""))
    return found


def _break(version: Path) -> None:
    import json

    from contract.manifest import sha256_of

    (version / "model.onnx").write_bytes(b"no model")
    report = json.loads((version / "parity_report.json").read_text())
    report["files"]["model.onnx"] = sha256_of(version / "model.onnx")
    (version / "parity_report.json").write_text(json.dumps(report))
