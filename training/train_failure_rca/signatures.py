"""The library of failure signatures: TOML files beside this module, one per label.

A signature's lines that begin with ``» `` prove its label; the others only surround them.
``{slot}`` stands for a part that differs from log to log; ``cascade = true`` marks what other
ranks print when one has died.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from contract.errors import ArtifactCorruptError

FOLDER = Path(__file__).with_name("signatures")
ACTIONS_FILE = Path(__file__).with_name("actions.toml")
NOISE_FILE = "noise.toml"
PROOF_MARK = "» "
LABELS = (
    "OOM",
    "CUDA_OutOfMemory",
    "CUDA_Driver_Mismatch",
    "DataLoader_Stuck",
    "Disk_Full",
    "Permission_Denied",
    "Network_Timeout",
    "Model_Code_Error",
    "GPU_Hardware_Fault",
    "Network_Link_Flap",
    "Storage_Quota",
    "Image_Env_Error",
    "Config_Error",
    "Checkpoint_Error",
)
_FOLDERS = ("/workspace/proj", "/data/team/run7", "/mnt/nas/users/li", "/opt/conda/lib/python3.10")
_FILES = ("train", "models/attention", "data/loader", "engine/trainer", "utils/io", "ckpt/last")


@dataclass(frozen=True)
class LabelledLine:
    """A line of a composed log and the labels it proves (none for most)."""

    text: str
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Signature:
    family: str
    labels: frozenset[str]
    lines: tuple[LabelledLine, ...]
    cascade: bool


@dataclass(frozen=True)
class Library:
    signatures: tuple[Signature, ...]
    noise: dict[str, tuple[str, ...]]

    def of(self, label: str, families: frozenset[str]) -> list[Signature]:
        return [s for s in self.signatures if label in s.labels and s.family in families]


def _integer(low: int, high: int) -> Callable[[np.random.Generator], str]:
    return lambda generator: str(generator.integers(low, high))


def _hexadecimal(digits: int) -> Callable[[np.random.Generator], str]:
    return lambda generator: "".join(generator.choice(list("0123456789abcdef"), digits))


_SLOTS: dict[str, Callable[[np.random.Generator], str]] = {
    "int": _integer(2, 4096),
    "bigint": _integer(100_000, 999_999_999),
    "pid": _integer(1000, 400_000),
    "rank": _integer(0, 8),
    "port": _integer(1024, 65_000),
    "gb": lambda g: f"{g.uniform(0.5, 96):.2f}",
    "loss": lambda g: f"{g.uniform(0.1, 12):.4f}",
    "uptime": lambda g: f"{g.uniform(100, 9_000_000):.6f}",
    "hex": _hexadecimal(8),
    "hex2": _hexadecimal(2),
    "ip": lambda g: ".".join(["10", *(str(g.integers(0, 255)) for _ in range(3))]),
    "node": lambda g: f"{g.choice(['gpu', 'node', 'a800', 'worker'])}-{g.integers(1, 400):03d}",
    "path": lambda g: f"{g.choice(_FOLDERS)}/{g.choice(_FILES)}",
    "time": lambda g: (
        f"2026-{g.integers(1, 13):02d}-{g.integers(1, 29):02d}"
        f" {g.integers(0, 24):02d}:{g.integers(0, 60):02d}:{g.integers(0, 60):02d}"
    ),
}
_SLOT = re.compile(r"\{(" + "|".join(_SLOTS) + r")\}")


def fill(template: str, generator: np.random.Generator) -> str:
    """The template with every known slot filled; other braces stay."""
    return _SLOT.sub(lambda match: _SLOTS[match[1]](generator), template)


@cache
def load_library() -> Library:
    """All signatures and harmless lines. Raises ArtifactCorruptError for a bad file."""
    signatures: list[Signature] = []
    for path in sorted(FOLDER.glob("*.toml")):
        if path.name == NOISE_FILE:
            continue
        label = path.stem
        if label not in LABELS:
            raise ArtifactCorruptError(
                "a signature file is named after no label", where=str(path), got=label
            )
        for entry in _read(path)["signature"]:
            labels = frozenset([label, *entry.get("labels", [])])
            lines = tuple(
                LabelledLine(line.removeprefix(PROOF_MARK), labels)
                if line.startswith(PROOF_MARK)
                else LabelledLine(line)
                for line in entry["text"].strip("\n").split("\n")
            )
            if not any(line.labels for line in lines) or not labels <= set(LABELS):
                raise ArtifactCorruptError(
                    "a signature proves nothing, or an unknown label",
                    where=f"{path}: {entry['family']}",
                    expected=f"a line that begins with {PROOF_MARK!r}",
                )
            family = f"{label}/{entry['family']}"
            signatures.append(Signature(family, labels, lines, entry.get("cascade", False)))
    noise = {entry["kind"]: tuple(entry["lines"]) for entry in _read(FOLDER / NOISE_FILE)["noise"]}
    return Library(tuple(signatures), noise)


def load_actions() -> dict[str, dict[str, str]]:
    """What to do next: {label: {"zh": …, "en": …}}."""
    return {label: _read(ACTIONS_FILE)[label] for label in LABELS}


def _read(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactCorruptError(
            "signature file cannot be read", where=str(path), got=str(error)
        ) from error
