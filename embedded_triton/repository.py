"""Reads a model repository before tritonserver does, to say clearly what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ServerSetupError, UnknownModelError

CONFIG_FILE = "config.pbtxt"
ON_TRIAL = "__candidate"


@dataclass(frozen=True)
class RepositoryModel:
    name: str
    backend: str
    versions: tuple[int, ...]

    @property
    def is_front(self) -> bool:
        """Fronts call other models, so they are loaded after them."""
        return self.backend == "python"


def read_repository(folder: Path, names: tuple[str, ...] = ()) -> list[RepositoryModel]:
    """The models of a repository that have a version, fronts last; all, or just ``names``.

    Raises:
        ServerSetupError: no such folder, nothing published, or a model folder that is broken.
        UnknownModelError: a name that is not there.
    """
    if not folder.is_dir():
        raise ServerSetupError(
            "no model repository",
            where=str(folder),
            got="no such folder",
            next_command="publish models first: python -m export all",
        )
    models = [
        model
        for path in sorted(folder.iterdir())
        # A version on trial (export promote) is not for whoever starts the server.
        if path.is_dir() and not path.name.startswith(".") and not path.name.endswith(ON_TRIAL)
        for model in [_read_model(path)]
    ]
    known = {model.name: model for model in models}
    for name in names:
        if name not in known:
            raise UnknownModelError(
                f"unknown model {name!r}",
                where=str(folder),
                expected=f"one of {', '.join(known) or 'none there'}",
            )
        if not known[name].versions:
            raise ServerSetupError(
                f"{name}: no published version",
                where=str(folder / name),
                next_command="publish it: python -m export all",
            )
    chosen = [known[name] for name in names] or [model for model in models if model.versions]
    if not chosen:
        raise ServerSetupError(
            "the model repository is empty",
            where=str(folder),
            expected="at least one model with a version folder",
            got="no version" if models else "no model",
            next_command="publish models first: python -m export all",
        )
    return sorted(chosen, key=lambda model: (model.is_front, model.name))


def _read_model(path: Path) -> RepositoryModel:
    versions = tuple(sorted(int(v.name) for v in path.iterdir() if v.is_dir() and v.name.isdigit()))
    config = path / CONFIG_FILE
    if not config.is_file():
        if not versions:
            return RepositoryModel(path.name, "", ())
        raise ServerSetupError(
            f"{path.name}: broken model folder",
            where=str(path),
            expected=CONFIG_FILE,
            got="version folders without it",
            next_command="write it: python -m export config --write",
        )
    text = config.read_text(encoding="utf-8", errors="replace")
    found = re.search(r'^\s*(?:backend|platform)\s*:\s*"([^"]*)"', text, re.MULTILINE)
    return RepositoryModel(path.name, found.group(1) if found else "", versions)
