"""The manifest: everything a later stage needs to know about a trained run, in one JSON file.

``training`` writes it beside the weights, ``export`` copies it into each published version,
the text fronts read labels and thresholds from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    HashMismatchError,
    LabelsMissingError,
)
from contract.proven_files import MANIFEST_FILE as MANIFEST_FILE
from contract.proven_files import sha256_of as sha256_of

SCHEMA_VERSION = 1

TensorType = Literal["FP32", "FP16", "INT64", "INT32", "BOOL", "BYTES"]

# What waits longer than its caller does is better refused at once: 64 callers with one request
# each find room, and those who come on top are told. A queue of 1,024 let them wait 11 s.
MAX_QUEUE_SIZE = 96


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Frozen):
    """One input or output. ``dims`` excludes the batch axis; -1 is a dynamic axis."""

    name: str
    dtype: TensorType
    dims: tuple[int, ...]
    unit: str = ""
    optional: bool = False


class Tolerance(_Frozen):
    """Allowed absolute difference to eager fp32, in the output's own unit.

    For outputs scaled by the input (forecasts) ``relative_to_input`` divides the difference by
    the window's own spread first, so one figure serves bytes and ratios alike.
    """

    maximum: float
    percentile_99_9: float
    relative_to_input: bool = False
    # Allowed difference between a row's answers alone and among strangers, in the same unit.
    invariance: float = 1e-6


class Graph(_Frozen):
    """What is exported, proven and served by one of Triton's native backends."""

    triton_name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    # Fewer stall: export/config_pbtxt.py.
    instance_count: int = 3
    max_queue_size: int = MAX_QUEUE_SIZE
    # Longest value of the dynamic axis (tokens), or the context length of a fixed one.
    max_length: int
    # The grid of the parity ladder; what the graph does not accept is left out, the largest batch
    # and the longest row are always in it.
    parity_batches: tuple[int, ...] = (1, 2, 3, 7, 32)
    parity_lengths: tuple[int, ...] = (1, 2, 8, 17, 64, 128)
    tolerances: dict[str, Tolerance]
    # The same for fp16, bf16 and int8; an output that is not here is held to ``tolerances``.
    reduced_tolerances: dict[str, Tolerance] = Field(default_factory=dict)
    # Free-form facts a client learns from the server's config (quantiles, unit …), as strings.
    parameters: dict[str, str] = Field(default_factory=dict)


class Front(_Frozen):
    """The Python (BLS) model in front of a text classifier."""

    triton_name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int
    instance_count: int = 3
    max_queue_size: int = MAX_QUEUE_SIZE
    # Module that holds ``class Front``; copied, with ``modules``, into each published version.
    module: str
    modules: tuple[str, ...] = ()
    # Files of the run that travel with it (tokenizer.json …).
    files: tuple[str, ...] = ()
    parameters: dict[str, str] = Field(default_factory=dict)


class DataFile(_Frozen):
    """One source of the run: path relative to the data folder, or ``generator:<name>``."""

    path: str
    sha256: str
    rows: int
    role: Literal["train", "validation", "test"]


class Quality(_Frozen):
    """One figure beside the same figure of the simplest baseline, on the validation split."""

    metric: str
    value: float
    baseline: str
    baseline_value: float
    higher_is_better: bool
    rows: int
    split: str


class Manifest(_Frozen):
    schema_version: Literal[1] = 1
    model: str
    preset: str
    run_id: str
    created_at: str
    git_commit: str
    seed: int
    device: str
    packages: dict[str, str]
    graph: Graph
    front: Front | None = None
    labels: tuple[str, ...] = ()
    thresholds: dict[str, float] = Field(default_factory=dict)
    # What only this model knows: context_length, horizon, quantiles, max_tokens, temperature …
    settings: dict[str, Any] = Field(default_factory=dict)
    data: tuple[DataFile, ...] = ()
    quality: tuple[Quality, ...] = ()
    # Every other file of the run, path relative to the run → sha256.
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _labels_complete(self) -> Manifest:
        missing = [label for label in self.labels if label not in self.thresholds]
        if missing:
            raise LabelsMissingError(
                f"{self.model}: labels without a threshold",
                where=self.run_id,
                expected="one threshold per label",
                got=f"none for {', '.join(missing)}",
                next_command=f"rerun: python -m training train {self.model}",
            )
        return self


def read_manifest(folder: Path, *, verify_files: bool = True) -> Manifest:
    """Read ``folder/manifest.json``; with ``verify_files`` every named file must hash as written.

    Raises:
        ArtifactMissingError, ArtifactCorruptError, HashMismatchError, LabelsMissingError
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ArtifactMissingError(
            "no manifest",
            where=str(folder),
            expected=MANIFEST_FILE,
            got="no such file" if folder.is_dir() else "no such folder",
            next_command="train first: python -m training train <model>",
        )
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, UnicodeDecodeError) as error:
        reason = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise ArtifactCorruptError(
            "manifest cannot be read",
            where=str(path),
            expected=f"a manifest of schema {SCHEMA_VERSION}",
            got=reason,
            next_command="train again: python -m training train <model>",
        ) from error
    if verify_files:
        verify(folder, manifest)
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Raise unless every file the manifest names is there with its sha256."""
    for relative, expected in manifest.files.items():
        path = folder / relative
        if not path.is_file():
            raise ArtifactCorruptError(
                f"{manifest.model}: a file of the run is missing",
                where=str(path),
                expected=f"sha256 {expected[:12]}…",
                got="no such file",
                next_command=f"train again: python -m training train {manifest.model}",
            )
        actual = sha256_of(path)
        if actual != expected:
            raise HashMismatchError(
                f"{manifest.model}: a file is not the one that was trained",
                where=str(path),
                expected=f"sha256 {expected[:12]}…",
                got=f"{actual[:12]}…",
                next_command=f"train again: python -m training train {manifest.model}",
            )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest last and at once: a run without one is not a run."""
    temporary = folder / (MANIFEST_FILE + ".partial")
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST_FILE)
