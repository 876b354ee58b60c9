"""Markers by folder, and the fixtures that several folders use."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
REPOSITORY_ROOT = TESTS.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder sets the marker: tests/unit → unit, and so on."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "parity", "integration", "load"}:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return REPOSITORY_ROOT
