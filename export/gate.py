"""The gate: export candidates, climb the parity ladder with each, and write the verdicts."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import ExportError, ParityError
from export.candidate import JUNIT_FILE, MODEL_FILES, REPORT_FILE, Candidate
from export.container import container_limits
from export.ladder import EagerRung, OnnxRung, TorchScriptRung, WireRung
from export.onnx_export import export_onnx
from export.optimise import optimise
from export.parity import Reference, compare, grid
from export.report import ParityReport, RungResult, make_report, write_report
from export.torchscript_export import export_torchscript
from export.version_folder import stage

if TYPE_CHECKING:
    from embedded_triton.server import EmbeddedServer

BUILD_FOLDER = Path("build/export")
SERVER_STARTUP_SECONDS = 120.0


@dataclass
class Ascent:
    """One candidate on its way up the ladder."""

    candidate: Candidate
    network: Any
    eager: EagerRung
    reference: Reference | None = None
    rungs: list[RungResult] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs)


def export_files(candidate: Candidate) -> Ascent:
    """Load the network and write both files anew.

    Raises:
        ArtifactError: the run cannot be loaded.
        ExportError: the network cannot be exported as declared.
    """
    graph, artifact, spec = candidate.graph, candidate.artifact, candidate.spec
    network = spec.load_network(artifact).eval()
    candidate.folder.mkdir(parents=True, exist_ok=True)
    for stale in (*MODEL_FILES.values(), REPORT_FILE, JUNIT_FILE):
        (candidate.folder / stale).unlink(missing_ok=True)
    longest = graph.max_length
    sample = spec.parity_inputs(artifact, 2, max(1, longest // 2), "half")
    other = spec.parity_inputs(artifact, 3, longest, "none")
    export_onnx(spec.exporter, network, graph, sample, candidate.file("onnx"), container_limits())
    if candidate.target == "gpu" and spec.exporter == "optimum":
        optimise(candidate.file("onnx"), network, graph)
    export_torchscript(network, graph, sample, other, candidate.file("torchscript"))
    return Ascent(candidate, network, EagerRung(network, graph))


def prove(ascents: Sequence[Ascent], *, wire: bool, progress: bool = True) -> list[ParityReport]:
    """Climb every rung with every candidate; one server start for all of them.

    A candidate that fails offline is not served. Every report is written, whatever its verdict.
    """
    from tqdm import tqdm

    cells = sum(len(grid(ascent.candidate.graph)) for ascent in ascents)
    with tqdm(
        total=cells * (4 if wire else 3), unit="cell", desc="parity", disable=not progress
    ) as bar:
        for ascent in ascents:
            _climb_offline(ascent, bar)
        served = [ascent for ascent in ascents if ascent.passed] if wire else []
        if served:
            bar.set_description("parity: starting the server")
            with _serving([ascent.candidate for ascent in served]) as server:
                bar.set_description("parity: over the wire")
                # Two at a time: a classifier has one instance, the machine has more cores.
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda ascent: _climb_served(ascent, server, bar), served))
    reports = []
    for ascent in ascents:
        report = make_report(ascent.candidate, ascent.files, ascent.rungs)
        write_report(report, ascent.candidate.folder)
        reports.append(report)
    return reports


def require_passed(reports: Sequence[ParityReport], candidates: Sequence[Candidate]) -> None:
    """Raise ParityError naming the first fault of each report that failed."""
    failed = [
        (report, candidate)
        for report, candidate in zip(reports, candidates, strict=True)
        if not report.passed
    ]
    if failed:
        report, candidate = failed[0]
        more = f" (and {len(failed) - 1} more models failed)" if len(failed) > 1 else ""
        raise ParityError(
            f"{report.complaint()}{more}; see {candidate.folder / REPORT_FILE}",
            next_command=f"rerun: make parity MODEL={report.model}",
        )


def _climb_offline(ascent: Ascent, bar: Any) -> None:
    """Eager on all cores first; then both files side by side, each on one core as deployed."""
    import torch

    candidate = ascent.candidate
    ascent.files = candidate.hashes()
    bar.set_description(f"parity: {candidate.title}, eager")
    reference = ascent.reference = Reference.compute(candidate, ascent.eager, bar.update)
    bar.set_description(f"parity: {candidate.title}, files")

    def climb(kind: type[OnnxRung] | type[TorchScriptRung], file: str) -> RungResult:
        torch.set_num_threads(1)
        rung = kind(candidate.folder / file, candidate.graph)
        return compare(reference, rung, file, bar.update)

    pairs: list[tuple[type[OnnxRung] | type[TorchScriptRung], str]] = [
        (OnnxRung, MODEL_FILES["onnx"]),
        (TorchScriptRung, MODEL_FILES["torchscript"]),
    ]
    present = [(kind, file) for kind, file in pairs if file in ascent.files]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(pairs)) as pool:
            ascent.rungs.extend(pool.map(lambda pair: climb(*pair), present))
    finally:
        torch.set_num_threads(threads)


def _climb_served(ascent: Ascent, server: EmbeddedServer, bar: Any) -> None:
    from export.front_parity import compare_front

    candidate = ascent.candidate
    assert ascent.reference is not None
    rung = WireRung(
        server.grpc_url,
        candidate.triton_name,
        candidate.graph,
        positional=candidate.served == "torchscript",
    )
    with contextlib.closing(rung):
        ascent.rungs.append(
            compare(ascent.reference, rung, MODEL_FILES[candidate.served], bar.update)
        )
        if candidate.front is not None:
            ascent.rungs.append(
                compare_front(candidate, candidate.front, ascent.eager, rung.client)
            )


@contextlib.contextmanager
def _serving(candidates: Sequence[Candidate]) -> Iterator[EmbeddedServer]:
    """The real tritonserver on a throw-away repository of exactly these files."""
    from embedded_triton.server import EmbeddedServer, ServerSettings

    BUILD_FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="parity-", dir=BUILD_FOLDER))
    try:
        for candidate in candidates:
            stage(candidate, folder / "repository")
        settings = ServerSettings(
            folder / "repository",
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            run_folder=folder / "server",
            startup_timeout_seconds=SERVER_STARTUP_SECONDS,
        )
        with EmbeddedServer(settings) as server:
            yield server
    except OSError as error:
        raise ExportError("staging failed", where=str(folder), got=str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
