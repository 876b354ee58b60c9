"""docker-compose.yml against the compose specification and against what the project publishes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.container import LIMITS, container_limits
from training.registry import all_specs


@pytest.fixture(scope="module")
def compose(repository_root: Path) -> dict[str, Any]:
    stored: dict[str, Any] = yaml.safe_load((repository_root / "docker-compose.yml").read_text())
    return stored


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


def test_the_container_is_one_that_exports_are_checked_against(repository_root: Path) -> None:
    assert container_limits(repository_root / "docker-compose.yml") in LIMITS.values()


@pytest.mark.parametrize("service", ["triton", "triton-gpu"])
def test_it_loads_every_model_classifiers_before_fronts(
    compose: dict[str, Any], service: str
) -> None:
    command = compose["services"][service]["command"]
    loaded = [word.split("=")[1] for word in command if word.startswith("--load-model=")]
    graphs = [spec.graph(p).triton_name for spec in all_specs() for p in spec.presets]
    fronts = [front for spec in all_specs() for p in spec.presets if (front := spec.front(p))]
    names = [front.triton_name for front in fronts]
    assert set(loaded) == {*graphs, *names}
    assert len(loaded) == len(set(loaded))
    assert loaded[-len(names) :] == sorted(names)
    assert "--model-control-mode=explicit" in command
    volume = compose["services"][service]["volumes"][0]
    assert (volume["source"], volume["read_only"]) == ("./model_repository", True)
    assert f"--model-repository={volume['target']}" in command


def test_nothing_listens_beyond_the_loopback(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["ports"] == [
            "127.0.0.1:9000:8000",
            "127.0.0.1:9001:8001",
            "127.0.0.1:9002:8002",
        ]
    assert compose["services"]["triton-gpu"]["profiles"] == ["gpu"]
    reserved = compose["services"]["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved[0]["capabilities"] == ["gpu"]


def test_fronts_meet_the_same_tokenizers_as_in_training(
    compose: dict[str, Any], repository_root: Path
) -> None:
    for service in compose["services"].values():
        (pin,) = re.findall(r"tokenizers==\S+", service["build"]["dockerfile_inline"])
        for name in ("server.txt", "train.txt"):
            assert pin in (repository_root / "requirements" / name).read_text()


def test_fronts_run_on_the_containers_python(repository_root: Path) -> None:
    """The container has CPython 3.10: no newer syntax, no module that came later."""
    fronts = [front for spec in all_specs() for p in spec.presets if (front := spec.front(p))]
    modules = {name for front in fronts for name in (front.module, *front.modules)}
    files = [repository_root.joinpath(*name.split(".")).with_suffix(".py") for name in modules]
    for path in [*files, repository_root / "export/front_model.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        imported = {
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        later = {"tomllib", "typing.Self", "datetime.UTC", "enum.StrEnum", "typing.assert_never"}
        assert not imported & later, path
