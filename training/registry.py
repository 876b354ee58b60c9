"""Finds the models: every folder of ``training`` that has a ``spec.py``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

import training
from contract.errors import UnknownModelError
from training.spec import ModelSpec


@cache
def model_names() -> tuple[str, ...]:
    """Names of all models, in alphabetical order."""
    return tuple(
        sorted(
            module.name
            for root in training.__path__
            for module in pkgutil.iter_modules([root])
            if module.ispkg and (Path(root) / module.name / "spec.py").is_file()
        )
    )


def get_spec(name: str) -> ModelSpec:
    """The spec of one model. Raises UnknownModelError."""
    if name not in model_names():
        raise UnknownModelError(
            f"unknown model {name!r}",
            expected=f"one of {', '.join(model_names())}",
            next_command="list them: python -m training list",
        )
    spec: ModelSpec = importlib.import_module(f"training.{name}.spec").SPEC
    return spec


def all_specs() -> tuple[ModelSpec, ...]:
    return tuple(get_spec(name) for name in model_names())
