"""Run folders: ``artifacts/<model>/<run-id>/``. A run exists once its manifest is written."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import ArtifactCorruptError, ArtifactMissingError
from contract.manifest import (
    MANIFEST_FILE,
    DataFile,
    Front,
    Graph,
    Manifest,
    Quality,
    read_manifest,
    sha256_of,
    write_manifest,
)

DEFAULT_ROOT = Path("artifacts")
GOLDEN_FILE = "golden.npz"
GOLDEN_QUESTIONS_FILE = "golden.json"
CHECKPOINT_FILE = "checkpoint.pt"
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas")


@dataclass(frozen=True)
class Artifact:
    """One finished run: its folder and its verified manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Read and verify a run folder. Raises ArtifactError and its subclasses."""
        return cls(path, read_manifest(path))

    @classmethod
    def latest(cls, model: str, preset: str, root: Path = DEFAULT_ROOT) -> Artifact:
        """The newest finished run of a preset. Raises ArtifactMissingError."""
        newest = max(
            (
                (manifest.created_at, path)
                for path, manifest in _finished(root / model)
                if manifest.preset == preset
            ),
            default=None,
        )
        if newest is None:
            raise ArtifactMissingError(
                f"{model}: no trained run of preset {preset!r}",
                where=str(root / model),
                next_command=f"train it: python -m training train {model}",
            )
        return cls.load(newest[1])

    @classmethod
    def presets_on_disk(cls, model: str, root: Path = DEFAULT_ROOT) -> tuple[str, ...]:
        """Every preset of a model that has a finished run, oldest name first."""
        return tuple(dict.fromkeys(manifest.preset for _, manifest in _finished(root / model)))

    def golden(self) -> dict[str, np.ndarray]:
        """Real input rows of the graph, {input name: array (rows, …)}."""
        path = self.path / GOLDEN_FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError) as error:
            raise ArtifactCorruptError(
                "golden inputs cannot be read", where=str(path), got=str(error)
            ) from error

    def golden_questions(self) -> list[Any]:
        """Real questions as a user would ask them (texts, or series with their step)."""
        path = self.path / GOLDEN_QUESTIONS_FILE
        try:
            questions: list[Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactCorruptError(
                "golden questions cannot be read", where=str(path), got=str(error)
            ) from error
        return questions


def _finished(folder: Path) -> list[tuple[Path, Manifest]]:
    if not folder.is_dir():
        return []
    return [
        (path, read_manifest(path, verify_files=False))
        for path in sorted(folder.iterdir())
        if (path / MANIFEST_FILE).is_file()
    ]


def new_run_id(preset: str, seed: int) -> str:
    """``<preset>-<UTC time>-s<seed>``: sorts by time within a preset."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return f"{preset}-{now}-s{seed}"


def write_golden(path: Path, rows: dict[str, np.ndarray], questions: Sequence[Any]) -> None:
    """Store golden rows of the graph and golden questions of the user."""
    np.savez_compressed(path / GOLDEN_FILE, **rows)  # type: ignore[arg-type]
    (path / GOLDEN_QUESTIONS_FILE).write_text(
        json.dumps(list(questions), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def finish_run(
    path: Path,
    *,
    model: str,
    preset: str,
    seed: int,
    device: str,
    graph: Graph,
    front: Front | None,
    labels: tuple[str, ...],
    thresholds: dict[str, float],
    settings: dict[str, Any],
    data: Sequence[DataFile],
    quality: Sequence[Quality],
) -> Artifact:
    """Hash every file of the run, write the manifest last, drop the training checkpoint."""
    (path / CHECKPOINT_FILE).unlink(missing_ok=True)
    files = {
        str(file.relative_to(path)): sha256_of(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != MANIFEST_FILE
    }
    manifest = Manifest(
        model=model,
        preset=preset,
        run_id=path.name,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        git_commit=_git_commit(),
        seed=seed,
        device=device,
        packages={name: metadata.version(name) for name in _PACKAGES},
        graph=graph,
        front=front,
        labels=labels,
        thresholds=thresholds,
        settings=settings,
        data=tuple(data),
        quality=tuple(quality),
        files=files,
    )
    write_manifest(path, manifest)
    return Artifact(path, manifest)


def _git_commit() -> str:
    try:
        answer = subprocess.run(
            [
                "git",
                "-C",
                str(Path(__file__).parent),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer if re.fullmatch(r"[0-9a-f]{40}(-dirty)?", answer) else "unknown"
