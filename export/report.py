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
from typing import Any, Literal
from xml.etree import ElementTree

from pydantic import TypeAdapter

from contract.errors import ArtifactCorruptError
from export.candidate import JUNIT_FILE, REPORT_FILE, Candidate
from export.verdict import RungResult

HTML_FILE = "parity_report.html"
SCHEMA_VERSION: Literal[2] = 2
_PACKAGES = ("torch", "transformers", "optimum", "onnx", "onnxruntime", "tritonclient", "numpy")


@dataclass(frozen=True)
class ParityReport:
    """``files``: exported or bound file (and "labels", "thresholds") → sha256 it was proven for."""

    model: str
    preset: str
    run_id: str
    triton_name: str
    target: str
    precision: str
    required_rungs: tuple[str, ...]
    files: dict[str, str]
    rungs: list[RungResult]
    created_at: str
    packages: dict[str, str]
    hardware: dict[str, Any]
    # Faults seen without asking a question: operators, axes, config, labels, tokenizer.
    faults: list[str] = field(default_factory=list)
    # What a reviewer should know: operators kept in fp32 and why.
    notes: list[str] = field(default_factory=list)
    schema_version: Literal[2] = SCHEMA_VERSION

    @property
    def passed(self) -> bool:
        """Nothing is wrong with the files, and every rung that was climbed passed."""
        return not self.faults and bool(self.rungs) and all(rung.passed for rung in self.rungs)

    def missing_rungs(self, *, front: bool) -> list[str]:
        climbed = {rung.rung for rung in self.rungs}
        needed = (*self.required_rungs, "front") if front else self.required_rungs
        return [name for name in needed if name not in climbed]

    def complaint(self) -> str | None:
        """``log_anomaly: onnxruntime: 3 of 512 decisions flipped at …``; None when it passed."""
        for rung in self.rungs:
            complaint = rung.complaint()
            if complaint is not None and not self.faults:
                return f"{self.triton_name}: {rung.rung}: {complaint}"
        if self.faults:
            more = f" (and {len(self.faults) - 1} more faults)" if len(self.faults) > 1 else ""
            return self.faults[0] + more
        return None if self.rungs else f"{self.triton_name}: nothing was proven"

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


_READER = TypeAdapter(ParityReport)


def make_report(
    candidate: Candidate,
    files: dict[str, str],
    rungs: list[RungResult],
    *,
    faults: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ParityReport:
    manifest = candidate.artifact.manifest
    return ParityReport(
        model=manifest.model,
        preset=manifest.preset,
        run_id=manifest.run_id,
        triton_name=candidate.triton_name,
        target=candidate.target.name,
        precision=candidate.target.precision,
        required_rungs=candidate.target.required_rungs,
        files=files,
        rungs=rungs,
        faults=list(faults),
        notes=list(notes),
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
    _write(folder / JUNIT_FILE, junit_text([report]))


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
        return _READER.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # pydantic's and json's own
        raise ArtifactCorruptError(
            "parity report cannot be read",
            where=str(path),
            expected=f"a report of schema {SCHEMA_VERSION}",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            next_command="prove again: python -m export <model>",
        ) from error


def write_summary(
    reports: Sequence[ParityReport], candidates: Sequence[Candidate], folder: Path
) -> Path:
    """One JUnit document and one HTML page for all models of a run; returns the page."""
    from export.html_report import html_page

    texts = {
        folder / "junit.xml": junit_text(reports),
        folder / "parity.html": html_page(reports),
    }
    for report, candidate in zip(reports, candidates, strict=True):
        texts[candidate.folder / HTML_FILE] = html_page([report])
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        _write(path, text)
    return folder / "parity.html"


def table(reports: Sequence[ParityReport]) -> str:
    """One line per model and rung."""
    lines = [
        f"{'model':<34} {'rung':<12} {'cells':>5} {'cells/s':>8} {'worst |Δ|':>10} {'allowed':>8}"
        f" {'flipped':>13} {'alone |Δ|':>10}  verdict"
    ]
    for report in reports:
        for rung in report.rungs:
            worst = rung.closest_tensor
            alone = max((result.alone for result in rung.stability), default=None)
            difference = "-" if worst is None else f"{worst.maximum:.1e}"
            allowed = "-" if worst is None else f"{worst.allowed_maximum:.0e}"
            lines.append(
                f"{report.triton_name:<34} {rung.rung:<12} {rung.cells:>5}"
                f" {rung.cells_per_second:>8.1f} {difference:>10} {allowed:>8}"
                f" {f'{rung.flipped} of {rung.decisions}':>13}"
                f" {'-' if alone is None else f'{alone:.1e}':>10}"
                f"  {'pass' if rung.passed else 'FAIL'}"
            )
        lines.extend(f"{report.triton_name:<34} {fault}" for fault in report.faults)
    return "\n".join(lines)


def junit_suite(report: ParityReport) -> ElementTree.Element:
    """One test case for the files, one per rung."""
    name = f"parity.{report.target}.{report.triton_name}"
    cases = [("files", 0.0, "; ".join(report.faults) or None)]
    cases += [
        (f"{rung.rung} against {rung.against}", rung.seconds, rung.complaint())
        for rung in report.rungs
    ]
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(complaint is not None for _, _, complaint in cases)),
        time=f"{sum(seconds for _, seconds, _ in cases):.3f}",
    )
    for title, seconds, complaint in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname=name, name=title, time=f"{seconds:.3f}"
        )
        if complaint is not None:
            ElementTree.SubElement(case, "failure", message=complaint)
    return suite


def junit_text(reports: Sequence[ParityReport]) -> str:
    """All reports in one document, as CI wants it."""
    root = ElementTree.Element("testsuites", name="parity")
    root.extend(junit_suite(report) for report in reports)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


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
