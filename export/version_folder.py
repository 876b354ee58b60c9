"""What one version folder holds. The wire rung stages, and publish writes, by the same code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ArtifactCorruptError, ExportError
from contract.manifest import MANIFEST_FILE, Front
from export import config_pbtxt
from export.candidate import GOLDEN_FILE, REPORT_FILE, Candidate
from export.config_pbtxt import ModelConfig
from export.tuning import apply_tuning, read_tunings

SOURCE_ROOT = Path(__file__).parent.parent
FRONT_MODEL = Path(__file__).parent / "front_model.py"


@dataclass(frozen=True)
class VersionFolder:
    """``write(folder)`` fills an empty version folder of the model ``config`` describes."""

    config: ModelConfig
    write: Callable[[Path], None]

    @property
    def triton_name(self) -> str:
        return self.config.triton_name


def version_folders(candidate: Candidate) -> list[VersionFolder]:
    """The classifier or forecaster first, its front second."""
    manifest, front = candidate.artifact.manifest, candidate.front
    tuned = read_tunings().get(candidate.target.name, {})
    graph_config = config_pbtxt.graph_config(
        candidate.graph, manifest.labels, served=candidate.served, target=candidate.target
    )
    folders = [
        VersionFolder(
            apply_tuning(graph_config, tuned.get(graph_config.triton_name)),
            lambda folder: _write_model(candidate, folder),
        )
    ]
    if front is not None:
        folders.append(
            VersionFolder(
                apply_tuning(
                    config_pbtxt.front_config(front, manifest.labels),
                    tuned.get(front.triton_name),
                ),
                lambda folder: _write_front(candidate, front, folder),
            )
        )
    return folders


def stage(candidate: Candidate, repository: Path, version: int = 1) -> None:
    """Put a candidate into a throw-away repository, for the wire rung."""
    for model in version_folders(candidate):
        folder = repository / model.triton_name
        (folder / str(version)).mkdir(parents=True)
        for name, text in model.config.files().items():
            (folder / name).write_text(text, encoding="utf-8")
        model.write(folder / str(version))


def _write_model(candidate: Candidate, folder: Path) -> None:
    source = candidate.file(candidate.served)
    # A copy, not a hard link: the next export must never change what is published.
    shutil.copyfile(source, folder / source.name)
    golden = candidate.folder / GOLDEN_FILE
    if golden.is_file():
        shutil.copyfile(golden, folder / GOLDEN_FILE)
    _write_manifest(candidate, folder)


def _write_front(candidate: Candidate, front: Front, folder: Path) -> None:
    shutil.copyfile(FRONT_MODEL, folder / "model.py")
    _write_manifest(candidate, folder)
    for name in front.files:
        source = candidate.artifact.path / name
        if not source.is_file():
            raise ArtifactCorruptError(
                f"{candidate.title}: a file the front needs is missing",
                where=str(source),
                next_command=f"train again: python -m training train {candidate.spec.name}",
            )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    for module in (front.module, *front.modules):
        _mirror_module(module, folder)


def _mirror_module(module: str, folder: Path) -> None:
    """``training.text.text_batch`` → the same path below ``folder``, packages included."""
    parts = module.split(".")
    source = SOURCE_ROOT.joinpath(*parts).with_suffix(".py")
    if not source.is_file():
        raise ExportError("a front names a module that is not there", where=str(source), got=module)
    for depth in range(1, len(parts)):
        package = folder.joinpath(*parts[:depth])
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
    shutil.copyfile(source, folder.joinpath(*parts).with_suffix(".py"))


def _write_manifest(candidate: Candidate, folder: Path) -> None:
    shutil.copyfile(candidate.artifact.path / MANIFEST_FILE, folder / MANIFEST_FILE)
    report = candidate.folder / REPORT_FILE
    if report.is_file():
        shutil.copyfile(report, folder / REPORT_FILE)
