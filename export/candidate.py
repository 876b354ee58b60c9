"""A candidate: one trained run with the files that were exported from it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contract.errors import InputError, LabelsMissingError
from contract.manifest import MANIFEST_FILE, Front, Graph, Tolerance, sha256_of
from contract.proven_files import REPORT_FILE as REPORT_FILE
from contract.proven_files import sha256_of_json
from export.target import CPU, Target
from training.artifact import DEFAULT_ROOT, Artifact
from training.spec import ModelSpec

Format = Literal["onnx", "torchscript"]
MODEL_FILES: dict[Format, str] = {"onnx": "model.onnx", "torchscript": "model.pt"}
TORCHSCRIPT_SUFFIX = "_torchscript"
JUNIT_FILE = "parity_junit.xml"
GOLDEN_FILE = "golden_answers.npz"


@dataclass(frozen=True)
class Candidate:
    """``folder`` lies inside the run: ``artifacts/<model>/<run-id>/export/<target>/``."""

    spec: ModelSpec
    artifact: Artifact
    target: Target = CPU
    # The format that is served and published; the other one is proven all the same.
    served: Format = "onnx"
    folder: Path = field(default=Path())

    def __post_init__(self) -> None:
        if self.folder == Path():
            object.__setattr__(self, "folder", self.artifact.path / "export" / self.target.name)

    @property
    def graph(self) -> Graph:
        return self.artifact.manifest.graph

    @property
    def front(self) -> Front | None:
        """The text front goes with the ONNX classifier; a TorchScript variant is served bare."""
        return self.artifact.manifest.front if self.served == "onnx" else None

    @property
    def tolerances(self) -> dict[str, Tolerance]:
        """Per output: those of the target's precision."""
        graph = self.graph
        return graph.tolerances | (graph.reduced_tolerances if self.target.reduced else {})

    @property
    def triton_name(self) -> str:
        return served_name(self.graph.triton_name, self.served)

    @property
    def title(self) -> str:
        manifest = self.artifact.manifest
        return f"{manifest.model} {manifest.preset}"

    def file(self, name: Format) -> Path:
        return self.folder / MODEL_FILES[name]

    def hashes(self) -> dict[str, str]:
        """sha256 of each exported file, of the manifest and front files (tokenizer) they were
        proven with, and of the labels and thresholds inside that manifest."""
        manifest = self.artifact.manifest
        files = [self.folder / name for name in MODEL_FILES.values()]
        files.append(self.artifact.path / MANIFEST_FILE)
        if manifest.front is not None:
            files += [self.artifact.path / name for name in manifest.front.files]
        return {file.name: sha256_of(file) for file in files if file.is_file()} | {
            "labels": sha256_of_json(manifest.labels),
            "thresholds": sha256_of_json(manifest.thresholds),
        }


def served_name(triton_name: str, served: Format) -> str:
    return triton_name + (TORCHSCRIPT_SUFFIX if served == "torchscript" else "")


def find_candidates(
    specs: tuple[ModelSpec, ...],
    preset: str | None = None,
    *,
    root: Path = DEFAULT_ROOT,
    target: Target = CPU,
    served: Format = "onnx",
) -> list[Candidate]:
    """The newest run of each preset (of ``preset`` only, where named).

    Raises:
        ArtifactError: a run is missing, incomplete or changed, or has other labels.
        InputError: a preset that the model neither ships nor has a run of.
    """
    candidates = []
    for spec in specs:
        known = (*spec.presets, *Artifact.presets_on_disk(spec.name, root))
        if preset is not None and preset not in known:
            raise InputError(
                f"{spec.name}: unknown preset",
                where="--preset",
                expected=f"one of {', '.join(dict.fromkeys(known))}",
                got=preset,
            )
        for name in spec.presets if preset is None else (preset,):
            artifact = Artifact.latest(spec.name, name, root)
            _check_labels(spec, artifact)
            candidates.append(Candidate(spec, artifact, target, served))
    return candidates


def _check_labels(spec: ModelSpec, artifact: Artifact) -> None:
    """Labels are positions in a tensor: one missing or moved would rename every answer."""
    if artifact.manifest.labels != spec.labels:
        raise LabelsMissingError(
            f"{spec.name}: the run has other labels than the model",
            where=str(artifact.path),
            expected=", ".join(spec.labels) or "none",
            got=", ".join(artifact.manifest.labels) or "none",
            next_command=f"train again: python -m training train {spec.name}",
        )
