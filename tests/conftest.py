"""Markers by folder, and the fixtures that several folders use."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from training.spec import ModelSpec

TESTS = Path(__file__).parent
REPOSITORY_ROOT = TESTS.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder sets the marker: tests/unit → unit, and so on.

    Where servers run, a folder's tests share them: they stay in one worker of xdist. Those that ask
    for the trained chain, wherever they lie, share it too: it is trained once. First, because xdist
    reads its own marker in the same hook.
    """
    for item in items:
        parts = item.path.relative_to(TESTS).parts
        if parts[0] in {"unit", "parity", "integration", "load"}:
            item.add_marker(parts[0])
        if parts[0] in {"integration", "load"} and not item.get_closest_marker("xdist_group"):
            asks_chain = "chain" in getattr(item, "fixturenames", ())
            group = "chain" if asks_chain else "/".join(parts[:2])
            item.add_marker(pytest.mark.xdist_group(group))


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
