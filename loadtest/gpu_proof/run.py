"""The whole proof: checks, ceilings, parity and speed of every subject; rows for the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.gpu_proof.ceilings import Ceilings, measure_ceilings
from loadtest.gpu_proof.machine import Machine
from loadtest.gpu_proof.sides import EAGER, ONNX, SIDES, NotMeasuredError, Run, make_side
from loadtest.gpu_proof.subjects import Subject
from loadtest.gpu_proof.timing import Timing, time_in_turns, time_together
from loadtest.gpu_proof.triton_host import Host, TritonSide, stage_models, triton_host
from loadtest.served import Arrays

CALLERS = 32
TRITON_ONNX, TRITON_TORCHSCRIPT = "ONNX Runtime fp16 via Triton", "TorchScript fp32 via Triton"
_PROBE_SEED = 7
_GATE_SECONDS = 3600.0


@dataclass(frozen=True)
class Row:
    """One side at one shape. ``worst``, ``flipped``: against eager fp32 on the CPU."""

    subject: str
    side: str
    batch: int
    length: int
    timing: Timing
    worst: float
    flipped: int
    flops: float | None = None

    @property
    def flops_per_second(self) -> float | None:
        if self.flops is None:
            return None
        return self.flops * self.timing.rows_per_second / self.batch


@dataclass(frozen=True)
class Together:
    """Callers at once, one row a request."""

    subject: str
    side: str
    length: int
    timing: Timing


@dataclass
class Proof:
    """``absent``: {(subject, side): why it was not measured}. gate: (model, verdict, served by)."""

    machine: Machine
    ceilings: Ceilings
    sources: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    together: list[Together] = field(default_factory=list)
    absent: dict[tuple[str, str], str] = field(default_factory=dict)
    gate: list[tuple[str, str, str]] = field(default_factory=list)
    triton_kind: str = ""


@dataclass(frozen=True)
class ProofSettings:
    artifacts: Path = Path("artifacts")
    folder: Path = Path("build/gpu_proof")
    venv: Path = Path(".venv-triton")
    rounds: int = 5
    seconds: float = 0.5
    progress: bool = True


def prove_on(machine: Machine, subjects: list[Subject], settings: ProofSettings) -> Proof:
    """Measure all that this machine can."""
    from tqdm import tqdm

    settings.folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        # An earlier run's files are of other weights.
        for stale in (subject.name, f"{subject.name}.partial"):
            shutil.rmtree(settings.folder / stale, ignore_errors=True)
        (settings.folder / f"{subject.name}_{machine.device}.pt").unlink(missing_ok=True)
    proof = Proof(machine, measure_ceilings(machine.device))
    proof.gate = run_gate(settings)
    shapes = sum(len(one.batches) * len(one.lengths) for one in subjects)
    with tqdm(total=2 * shapes, unit="shape", disable=not settings.progress) as bar:
        for subject in subjects:
            bar.set_description(subject.name)
            proof.sources[subject.name] = subject.source
            sides = _local_sides(proof, subject, settings)
            _measure(proof, subject, sides, settings, bar)
            _measure_eager_together(proof, subject, sides, settings)
            sides.clear()
        bar.set_description("through Triton")
        _through_triton(proof, subjects, settings, bar)
    return proof


def run_gate(settings: ProofSettings) -> list[tuple[str, str, str]]:
    """The export gate's verdicts for target ``gpu``, a row a report that it wrote."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "export", "all", "--target", "gpu", "--no-publish", "--quiet"),
            *("--artifacts", str(settings.artifacts)),
            *("--report-folder", str(settings.folder / "parity")),
        ],
        capture_output=True,
        text=True,
        timeout=_GATE_SECONDS,
        check=False,
    )
    reports = sorted(settings.artifacts.glob("*/*/export/gpu/parity_report.json"))
    newest: dict[str, tuple[float, dict[str, Any]]] = {}
    for path in reports:
        report = json.loads(path.read_text("utf-8"))
        key = f"{report.get('model')} {report.get('preset', '')}".strip()
        newest[key] = max(newest.get(key, (0.0, {})), (path.stat().st_mtime, report), key=_first)
    if done.returncode and not newest:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return [("all models", "not measured", (lines or ["no output"])[-1][:200])]
    return [_verdict(name, report) for name, (_, report) in sorted(newest.items())]


def _first(pair: tuple[float, dict[str, Any]]) -> float:
    return pair[0]


def _verdict(name: str, report: dict[str, Any]) -> tuple[str, str, str]:
    served = [str(rung.get("served_by", "")) for rung in report.get("rungs", [])]
    return name, "passed" if report.get("passed") else "failed", (served or [""])[0]


def _local_sides(proof: Proof, subject: Subject, settings: ProofSettings) -> dict[str, Run]:
    sides: dict[str, Run] = {}
    for name in SIDES:
        try:
            sides[name] = make_side(name, subject, proof.machine.device, settings.folder)
        except NotMeasuredError as error:
            proof.absent[subject.name, name] = str(error)
    return sides


def _measure(
    proof: Proof, subject: Subject, sides: dict[str, Run], settings: ProofSettings, bar: Any
) -> None:
    """Parity, then speed, of each side at each shape."""
    for length in subject.lengths:
        for batch in subject.batches:
            inputs = subject.inputs(batch, length, _PROBE_SEED)
            reference = _reference(subject, inputs)
            parities: dict[str, tuple[float, int]] = {}
            for name in list(sides):
                try:
                    parities[name] = subject.difference(reference, sides[name](inputs))
                except Exception as error:  # each runtime raises its own, out of memory included
                    at = f"batch {batch} × {length}: {type(error).__name__}: {str(error)[:120]}"
                    proof.absent[subject.name, f"{name}, batch {batch} × {length}"] = at
            calls = {name: partial(sides[name], inputs) for name in parities}
            if not calls:
                continue
            timings = time_in_turns(calls, batch, rounds=settings.rounds, seconds=settings.seconds)
            flops = None if subject.flops is None else subject.flops(batch, length)
            proof.rows += [
                Row(subject.name, name, batch, length, timing, *parities[name], flops)
                for name, timing in timings.items()
            ]
            bar.update()


def _reference(subject: Subject, inputs: Arrays) -> Arrays:
    """Eager fp32 on the CPU, whatever the device."""
    import torch

    from export.onnx_export import as_tensors

    with torch.inference_mode():
        outputs = subject.network(*as_tensors(subject.graph, inputs))
    return {
        tensor.name: output.numpy()
        for tensor, output in zip(subject.graph.outputs, outputs, strict=True)
    }


def _measure_eager_together(
    proof: Proof, subject: Subject, sides: dict[str, Run], settings: ProofSettings
) -> None:
    """Eager under as many callers as Triton gets."""
    length = _served_length(subject)
    inputs = subject.inputs(1, length, _PROBE_SEED)
    timing = time_together(
        [partial(sides[EAGER], inputs)] * CALLERS,
        1,
        rounds=settings.rounds,
        seconds=2 * settings.seconds,
    )
    proof.together.append(Together(subject.name, EAGER, length, timing))


def _served_length(subject: Subject) -> int:
    """128 tokens where they are measured: the length that the target names."""
    return 128 if 128 in subject.lengths else subject.lengths[0]


def _through_triton(
    proof: Proof, subjects: list[Subject], settings: ProofSettings, bar: Any
) -> None:
    names = (TRITON_ONNX, TRITON_TORCHSCRIPT)
    missing = proof.machine.missing("ONNX Runtime CUDA") if proof.machine.has_gpu else None
    try:
        failed = stage_models(subjects, proof.machine, settings.folder)
        with triton_host(proof.machine, settings.folder, settings.venv) as host:
            proof.triton_kind = host.kind
            for subject in subjects:
                _served(proof, subject, host, failed, settings, bar)
    except NotMeasuredError as error:
        why = f"{error}" + (f"; {missing}" if missing else "")
        for subject in subjects:
            for name in names:
                proof.absent[subject.name, name] = why


def _served(
    proof: Proof,
    subject: Subject,
    host: Host,
    failed: dict[str, str],
    settings: ProofSettings,
    bar: Any,
) -> None:
    sides: dict[str, Run] = {}
    opened: list[TritonSide] = []
    for name, served in ((TRITON_ONNX, "onnx"), (TRITON_TORCHSCRIPT, "torchscript")):
        try:
            callers = [TritonSide(host, subject, served) for _ in range(CALLERS)]  # type: ignore[arg-type]
            opened += callers
            if callers[0].model in failed:
                raise NotMeasuredError(failed[callers[0].model])
            length = _served_length(subject)
            inputs = subject.inputs(1, length, _PROBE_SEED)
            timing = time_together(
                [partial(one, inputs) for one in callers],
                1,
                rounds=settings.rounds,
                seconds=2 * settings.seconds,
            )
            proof.together.append(Together(subject.name, name, length, timing))
            sides[name] = callers[0]
        except NotMeasuredError as error:
            proof.absent[subject.name, name] = str(error)
    _measure(proof, subject, sides, settings, bar)
    for caller in opened:
        caller.close()


def in_process_and_served(proof: Proof, subject: str, length: int) -> tuple[float, float] | None:
    """Best rows a second of ONNX Runtime at a length: in this process, and through Triton."""
    best = [
        max(
            (
                row.timing.rows_per_second
                for row in proof.rows
                if (row.subject, row.side, row.length) == (subject, side, length)
            ),
            default=None,
        )
        for side in (ONNX, TRITON_ONNX)
    ]
    if best[0] is None or best[1] is None:
        return None
    return best[0], best[1]
