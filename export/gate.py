"""The gate: export candidates, climb the parity ladder with each, and write the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from contract.errors import ParityError
from export.candidate import GOLDEN_FILE, JUNIT_FILE, MODEL_FILES, REPORT_FILE, Candidate
from export.container import container_limits
from export.golden_answers import collect
from export.judge import (
    Ascent,
    begin,
    climb_offline,
    climb_served,
    offline_ticks,
    sample_inputs,
    served_ticks,
)
from export.onnx_export import export_onnx
from export.optimise import optimise
from export.report import ParityReport, write_report
from export.serving import serving, staged
from export.torchscript_export import export_torchscript


def export_files(candidate: Candidate) -> Ascent:
    """Load the network and write the target's files anew.

    Raises:
        ArtifactError: the run cannot be loaded.
        ExportError: the network cannot be exported as declared.
    """
    ascent = begin(candidate)
    graph, artifact, spec = candidate.graph, candidate.artifact, candidate.spec
    candidate.folder.mkdir(parents=True, exist_ok=True)
    for stale in (*MODEL_FILES.values(), REPORT_FILE, JUNIT_FILE, GOLDEN_FILE):
        (candidate.folder / stale).unlink(missing_ok=True)
    sample = sample_inputs(candidate)
    path = candidate.file("onnx")
    export_onnx(spec.exporter, ascent.network, graph, sample, path, container_limits())
    ascent.notes += _rewrite_for_target(candidate, ascent)
    collect(candidate, ascent.eager)
    if candidate.target.torchscript:
        other = spec.parity.inputs(artifact, 3, graph.max_length, "none")
        export_torchscript(ascent.network, graph, sample, other, candidate.file("torchscript"))
    return ascent


def _rewrite_for_target(candidate: Candidate, ascent: Ascent) -> list[str]:
    """The plain fp32 file into the target's precision, in place; notes for the reviewer."""
    target, path, graph = candidate.target, candidate.file("onnx"), candidate.graph
    if target.precision == "int8":
        from export.quantise import quantise_dynamic, quantise_weights

        quantise = quantise_weights if target.backend == "openvino" else quantise_dynamic
        return [f"int8: {quantise(path, graph)}"]
    if target.precision != "fp16":
        return []
    from export.half import convert_half

    text = candidate.spec.exporter == "optimum"
    if text:
        optimise(path, ascent.network, graph)
    parity, artifact = candidate.spec.parity, candidate.artifact
    calibration = [parity.inputs(artifact, min(16, graph.max_batch_size), graph.max_length, "none")]
    calibration += parity.edges(artifact).values()
    kept = convert_half(path, graph, calibration, matrices_only=not text)
    return [f"fp32 kept: {one.op_type} {one.node}: {one.reason}" for one in kept]


def prove(ascents: Sequence[Ascent], *, wire: bool, progress: bool = True) -> list[ParityReport]:
    """Climb every rung with every candidate; one server start for all of them.

    What is judged is what would be published, staged into a throw-away repository. A candidate
    that fails offline is not served. Every report is written, whatever its verdict.
    """
    from tqdm import tqdm

    total = sum(
        offline_ticks(ascent.candidate) + (served_ticks(ascent.candidate) if wire else 0)
        for ascent in ascents
    )
    with (
        staged([ascent.candidate for ascent in ascents]) as repository,
        tqdm(total=total, unit="cell", desc="parity", disable=not progress) as bar,
    ):
        for ascent in ascents:
            bar.set_description(f"parity: {ascent.candidate.title}, files")
            climb_offline(ascent, repository, tick=bar.update)
        served = [ascent for ascent in ascents if ascent.passed] if wire else []
        if served:
            bar.set_description("parity: starting the server")
            with serving([ascent.candidate for ascent in served], repository) as server:
                bar.set_description("parity: over the wire")

                def climb(ascent: Ascent) -> None:
                    climb_served(ascent, server.grpc_url, server.http_url, tick=bar.update)

                # Two at a time: one caller leaves the second core idle.
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(climb, served))
    reports = []
    for ascent in ascents:
        report = ascent.report()
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
