"""The verdict on one candidate: ``parity_report.json``, JUnit XML and a table. No torch here."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from contract.errors import ArtifactCorruptError
from export.candidate import JUNIT_FILE, REPORT_FILE, Candidate

SCHEMA_VERSION = 1
# Rungs without which nothing is published: what is served must have been asked over the wire.
REQUIRED_RUNGS = ("onnxruntime", "torchscript", "wire")
_PACKAGES = ("torch", "transformers", "optimum", "onnx", "onnxruntime", "tritonclient", "numpy")


@dataclass(frozen=True)
class CellError:
    cell: str
    message: str


@dataclass(frozen=True)
class Flip:
    """A decision that changed; ``margin`` is eager's distance from the threshold."""

    cell: str
    row: int
    decision: int
    expected: int
    got: int
    margin: float


@dataclass(frozen=True)
class TensorResult:
    """Largest and 99.9th percentile |Δ| to eager over the grid, in the tolerance's unit."""

    name: str
    maximum: float
    percentile_99_9: float
    allowed_maximum: float
    allowed_percentile_99_9: float
    worst_cell: str
    nan_mismatches: int

    @property
    def passed(self) -> bool:
        return (
            self.maximum <= self.allowed_maximum
            and self.percentile_99_9 <= self.allowed_percentile_99_9
            and self.nan_mismatches == 0
        )


@dataclass(frozen=True)
class RungResult:
    rung: str
    against: str
    file: str
    cells: int
    rows: int
    seconds: float
    tensors: list[TensorResult]
    decisions: int
    flipped: int
    flips: list[Flip] = field(default_factory=list)
    errors: list[CellError] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.errors and self.flipped == 0 and all(t.passed for t in self.tensors)

    @property
    def cells_per_second(self) -> float:
        return self.cells / self.seconds if self.seconds > 0 else 0.0

    def complaint(self) -> str | None:
        """What is wrong first, in one clause; None when it passed."""
        if self.errors:
            first = self.errors[0]
            failed = f"{len(self.errors)} of {self.cells} cells failed"
            return f"{failed}, first {first.cell}: {first.message}"
        if self.flipped:
            where = f" at {self.flips[0].cell}" if self.flips else ""
            return f"{self.flipped} of {self.decisions} decisions flipped{where}, allowed 0"
        for tensor in self.tensors:
            if tensor.nan_mismatches:
                return (
                    f"{tensor.name}: {tensor.nan_mismatches} values are NaN or infinite in one only"
                )
            if not tensor.passed:
                return (
                    f"{tensor.name} differs by {tensor.maximum:.1e}"
                    f" (99.9%: {tensor.percentile_99_9:.1e}) at {tensor.worst_cell}, allowed"
                    f" {tensor.allowed_maximum:.1e} ({tensor.allowed_percentile_99_9:.1e})"
                )
        return None


@dataclass(frozen=True)
class ParityReport:
    """``files``: exported file → sha256 it was proven for."""

    model: str
    preset: str
    run_id: str
    triton_name: str
    target: str
    files: dict[str, str]
    rungs: list[RungResult]
    created_at: str
    packages: dict[str, str]
    hardware: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def passed(self) -> bool:
        """Every rung that was climbed passed."""
        return bool(self.rungs) and all(rung.passed for rung in self.rungs)

    def missing_rungs(self, *, front: bool) -> list[str]:
        climbed = {rung.rung for rung in self.rungs}
        needed = (*REQUIRED_RUNGS, "front") if front else REQUIRED_RUNGS
        return [name for name in needed if name not in climbed]

    def complaint(self) -> str | None:
        """``log_anomaly: onnxruntime: 3 of 512 decisions flipped at …``; None when it passed."""
        for rung in self.rungs:
            complaint = rung.complaint()
            if complaint is not None:
                return f"{self.triton_name}: {rung.rung}: {complaint}"
        return None

    @property
    def worst(self) -> tuple[float, str]:
        """The difference that comes closest to what is allowed (or goes beyond), and its place."""
        every = [
            (tensor.maximum / (tensor.allowed_maximum or 1.0), tensor.maximum, rung.rung, tensor)
            for rung in self.rungs
            for tensor in rung.tensors
        ]
        if not every:
            return 0.0, ""
        _, maximum, rung, tensor = max(every, key=lambda item: item[0])
        return maximum, f"{tensor.name}, {rung}, {tensor.worst_cell}"

    @property
    def flipped(self) -> int:
        return sum(rung.flipped for rung in self.rungs)

    @property
    def decisions(self) -> int:
        return sum(rung.decisions for rung in self.rungs)


def make_report(
    candidate: Candidate, files: dict[str, str], rungs: list[RungResult]
) -> ParityReport:
    manifest = candidate.artifact.manifest
    return ParityReport(
        model=manifest.model,
        preset=manifest.preset,
        run_id=manifest.run_id,
        triton_name=candidate.triton_name,
        target=candidate.target,
        files=files,
        rungs=rungs,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        packages={name: metadata.version(name) for name in _PACKAGES},
        hardware=_hardware(),
    )


def write_report(report: ParityReport, folder: Path) -> None:
    """Write the JSON (with the verdict in it) and the JUnit XML, each at once."""
    worst, place = report.worst
    document = asdict(report) | {
        "passed": report.passed,
        "worst": {"difference": worst, "at": place},
        "decisions": report.decisions,
        "flipped": report.flipped,
    }
    for entry, rung in zip(document["rungs"], report.rungs, strict=True):
        entry["passed"] = rung.passed
        entry["cells_per_second"] = round(rung.cells_per_second, 1)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / REPORT_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    _write(folder / JUNIT_FILE, _junit(report))


def read_report(folder: Path) -> ParityReport | None:
    """The report beside the exported files; None when there is none.

    The verdict is computed again from the figures: editing ``passed`` changes nothing.

    Raises:
        ArtifactCorruptError: it is there but cannot be read.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {stored['schema_version']}")
        rungs = [
            RungResult(
                **{name: entry[name] for name in ("rung", "against", "file", "cells", "rows")},
                seconds=entry["seconds"],
                tensors=[TensorResult(**tensor) for tensor in entry["tensors"]],
                decisions=entry["decisions"],
                flipped=entry["flipped"],
                flips=[Flip(**flip) for flip in entry["flips"]],
                errors=[CellError(**error) for error in entry["errors"]],
            )
            for entry in stored["rungs"]
        ]
        names = ("model", "preset", "run_id", "triton_name", "target", "files", "created_at")
        return ParityReport(
            **{name: stored[name] for name in names},
            rungs=rungs,
            packages=stored["packages"],
            hardware=stored["hardware"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactCorruptError(
            "parity report cannot be read",
            where=str(path),
            expected=f"a report of schema {SCHEMA_VERSION}",
            got=f"{type(error).__name__}: {error}",
            next_command="prove again: python -m export <model>",
        ) from error


def table(reports: Sequence[ParityReport]) -> str:
    """One line per model and rung."""
    lines = [
        f"{'model':<34} {'rung':<12} {'cells':>5} {'cells/s':>8} {'worst |Δ|':>10} {'allowed':>8}"
        f" {'flipped':>13}  verdict"
    ]
    for report in reports:
        for rung in report.rungs:
            worst = max(
                rung.tensors,
                key=lambda t: t.maximum / (t.allowed_maximum or 1.0),
                default=None,
            )
            difference = "-" if worst is None else f"{worst.maximum:.1e}"
            allowed = "-" if worst is None else f"{worst.allowed_maximum:.0e}"
            lines.append(
                f"{report.triton_name:<34} {rung.rung:<12} {rung.cells:>5}"
                f" {rung.cells_per_second:>8.1f} {difference:>10} {allowed:>8}"
                f" {f'{rung.flipped} of {rung.decisions}':>13}  {'pass' if rung.passed else 'FAIL'}"
            )
    return "\n".join(lines)


def _junit(report: ParityReport) -> str:
    failures = sum(not rung.passed for rung in report.rungs)
    suite = ElementTree.Element(
        "testsuite",
        name=f"parity.{report.triton_name}",
        tests=str(len(report.rungs)),
        failures=str(failures),
        time=f"{sum(rung.seconds for rung in report.rungs):.3f}",
    )
    for rung in report.rungs:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"parity.{report.triton_name}",
            name=f"{rung.rung} against {rung.against}",
            time=f"{rung.seconds:.3f}",
        )
        complaint = rung.complaint()
        if complaint is not None:
            ElementTree.SubElement(case, "failure", message=complaint)
    ElementTree.indent(suite)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, "unicode") + "\n"
    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _hardware() -> dict[str, Any]:
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {"cpu": model, "cores": os.cpu_count(), "machine": platform.machine()}
