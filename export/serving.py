"""The real tritonserver on a throw-away repository, for the served rungs."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ExportError
from export.candidate import Candidate
from export.config_pbtxt import without_instance_kind
from export.version_folder import stage

if TYPE_CHECKING:
    from embedded_triton.server import EmbeddedServer

BUILD_FOLDER = Path("build/export")
STARTUP_SECONDS = 120.0


@contextlib.contextmanager
def staged(candidates: Sequence[Candidate]) -> Iterator[Path]:
    """A repository of exactly what would be published, as version 1."""
    with _throw_away() as repository:
        for candidate in candidates:
            stage(candidate, repository)
        yield repository


@contextlib.contextmanager
def copied(candidate: Candidate, published: Path, version: int) -> Iterator[Path]:
    """A repository that holds one published version, under its own number, and nothing else."""
    with _throw_away() as repository:
        for name in triton_names(candidate):
            for source in sorted((published / name).iterdir()):
                if source.is_file():
                    (repository / name).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, repository / name / source.name)
            shutil.copytree(published / name / str(version), repository / name / str(version))
        yield repository


@contextlib.contextmanager
def serving(candidates: Sequence[Candidate], repository: Path) -> Iterator[EmbeddedServer]:
    """The server with the models of ``candidates``; their configs lose what it does not have."""
    from embedded_triton.server import EmbeddedServer, ServerSettings

    names = [name for candidate in candidates for name in triton_names(candidate)]
    for candidate in candidates:
        if candidate.target.on_gpu:
            # The embedded server has no GPU; the published config asks for one.
            without_instance_kind(repository / candidate.triton_name)
    settings = ServerSettings(
        repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=tuple(names),
        run_folder=repository.parent / "server",
        startup_timeout_seconds=STARTUP_SECONDS,
    )
    with EmbeddedServer(settings) as server:
        yield server


def triton_names(candidate: Candidate) -> list[str]:
    """The classifier or forecaster, and its front."""
    fronts = [] if candidate.front is None else [candidate.front.triton_name]
    return [candidate.triton_name, *fronts]


@contextlib.contextmanager
def _throw_away() -> Iterator[Path]:
    BUILD_FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="parity-", dir=BUILD_FOLDER))
    try:
        yield folder / "repository"
    except OSError as error:
        raise ExportError("staging failed", where=str(folder), got=str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
