"""The toy model, registered for the tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from training.spec import ModelSpec


def _load_toy_model() -> ModuleType:
    name = "presage_toy_model"
    if name not in sys.modules:
        path = Path(__file__).parents[2] / "fixtures" / "toy_model.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def toy_model() -> ModuleType:
    """tests/fixtures/toy_model.py"""
    return _load_toy_model()


@pytest.fixture
def toy_spec(toy_model: ModuleType) -> Iterator[ModelSpec]:
    with toy_model.toy_registered() as spec:
        yield spec
