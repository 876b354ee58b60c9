"""Markers by folder, and the fixtures that several folders use."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from training.spec import ModelSpec

TESTS = Path(__file__).parent
REPOSITORY_ROOT = TESTS.parent


# Test files that ask for the trained chain: one worker of xdist has it for all of them.
CHAIN = {
    "integration/chain/test_chain.py",
    "integration/clients/test_clients_command.py",
    "integration/gateway/test_apis.py",
    "load/test_load_run.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder sets the marker: tests/unit → unit, and so on."""
    for item in items:
        path = item.path.relative_to(TESTS)
        folder = path.parts[0]
        if folder in {"unit", "parity", "integration", "load"}:
            item.add_marker(folder)
        asks_chain = "chain" in getattr(item, "fixturenames", ())
        assert not asks_chain or path.as_posix() in CHAIN, f"name {path} in tests/conftest.py"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadscope``: where servers run, a folder's tests share them in one worker.

    By ids, since the marker of ``loadgroup`` does nothing under pytest 9.2 (xdist 3.8).
    """
    from xdist.scheduler import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            parts = nodeid.split("::")[0].removeprefix("tests/").split("/")
            if "/".join(parts) in CHAIN:
                return "chain"
            whole = parts[0] in {"integration", "load"} or parts[:2] == ["unit", "k8s"]
            # Each of these has servers of its own to lose, and waits most of its time.
            if parts[:3] == ["integration", "faults", "services"]:
                whole = False
            return "/".join(parts[:2] if whole else parts)

    return FolderScheduling(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return REPOSITORY_ROOT


def _fixture_module(name: str) -> ModuleType:
    """tests/fixtures/<name>.py, imported once for all folders."""
    full = f"presage_{name}"
    if full not in sys.modules:
        path = TESTS / "fixtures" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def toy_model() -> ModuleType:
    """Tiny and toy runs."""
    return _fixture_module("toy_model")


@pytest.fixture(scope="session")
def steady_load() -> ModuleType:
    """Callers that ask without a break."""
    return _fixture_module("steady_load")


@pytest.fixture(scope="session")
def sabotaging_proxy() -> ModuleType:
    """A server that spoils some of tritonserver's answers."""
    return _fixture_module("sabotaging_proxy")


@pytest.fixture
def toy_spec(toy_model: ModuleType) -> Iterator[ModelSpec]:
    """The toy model, registered for the length of a test."""
    with toy_model.toy_registered() as spec:
        yield spec
