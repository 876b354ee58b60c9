"""The judge: what is about to be served, held against the network it came from.

It reads the version folder itself (staged or published), not the run's files: a fault that comes
in on the way there is a fault.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from contract.errors import ExportError, PresageError
from export.candidate import MODEL_FILES, Candidate
from export.config_pbtxt import CONFIG_FILE, parse_config
from export.container import container_limits
from export.diagnosis import causes_in_answers
from export.file_diagnosis import causes_in_file, overflows
from export.front_parity import compare_front
from export.grid import Reference, Tick, cells
from export.inspection import onnx_faults
from export.ladder import EagerRung, OnnxRung, Rung, TorchScriptRung
from export.onnx_export import export_onnx
from export.optimise import encoder_layers
from export.parity import compare
from export.report import ParityReport, make_report
from export.verdict import RungResult
from export.version_inspection import version_faults
from export.wire import ConcurrentRung, WireClient, WireRung

# Rows of a request that 32 callers share: fewer would not be strangers to each other.
SMALLEST_CONCURRENT_BATCH = 32
OFFLINE_RUNGS = 3  # eager, and both files


@dataclass
class Ascent:
    """One candidate on its way up the ladder."""

    candidate: Candidate
    network: torch.nn.Module
    eager: EagerRung
    reference: Reference | None = None
    faults: list[str] = field(default_factory=list)
    rungs: list[RungResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.faults and all(rung.passed for rung in self.rungs)

    def report(self) -> ParityReport:
        return make_report(
            self.candidate, self.files, self.rungs, faults=self.faults, notes=self.notes
        )


def begin(candidate: Candidate) -> Ascent:
    """Load the network. Raises ArtifactError: the run cannot be loaded."""
    network = candidate.spec.load_network(candidate.artifact).eval()
    return Ascent(candidate, network, EagerRung(network, candidate.graph))


def judge(
    candidate: Candidate,
    repository: Path,
    *,
    version: int = 1,
    ascent: Ascent | None = None,
) -> ParityReport:
    """Every check that needs no server, on the version folder in ``repository``.

    ``ascent``: an earlier one of the same run, whose network and eager answers are used again.
    """
    earlier = ascent or begin(candidate)
    fresh = Ascent(candidate, earlier.network, earlier.eager)
    if earlier.reference is not None:
        # Same questions, but judged by this candidate's limits.
        fresh.reference = replace(earlier.reference, candidate=candidate)
    climb_offline(fresh, repository, version)
    earlier.reference = earlier.reference or fresh.reference
    return fresh.report()


def climb_offline(
    ascent: Ascent, repository: Path, version: int = 1, *, tick: Tick = lambda: None
) -> None:
    """Inspection, eager on all cores, then both files side by side, each on one core as served."""
    candidate = ascent.candidate
    folder = repository / candidate.triton_name
    served = folder / str(version) / MODEL_FILES[candidate.served]
    onnx_file = served if candidate.served == "onnx" else candidate.file("onnx")
    torchscript = served if candidate.served == "torchscript" else candidate.file("torchscript")
    ascent.files = candidate.hashes()
    layers = encoder_layers(ascent.network) if _is_fused(candidate) else 0
    faults = onnx_faults(onnx_file, candidate.graph, container_limits(), layers=layers)
    ascent.faults += [str(fault) for fault in faults]
    ascent.faults += [str(fault) for fault in version_faults(candidate, repository, version)]
    reference = ascent.reference
    if reference is None:
        reference = ascent.reference = Reference.compute(candidate, ascent.eager, tick)
    files = [onnx_file, torchscript] if candidate.target.torchscript else [onnx_file]
    threads = torch.get_num_threads()

    def climb(path: Path) -> tuple[Rung, RungResult] | str:
        torch.set_num_threads(1)
        if path.suffix == ".pt" and not path.is_file():
            return f"{candidate.triton_name}: no TorchScript file at {path}"
        try:
            rung = rung_of(path, candidate, folder / CONFIG_FILE)
        except PresageError as error:
            return str(error)
        return rung, compare(reference, rung, path.name, tick)

    try:
        with ThreadPoolExecutor(len(files)) as pool:
            results = list(pool.map(climb, files))
    finally:
        torch.set_num_threads(threads)
    for path, answer in zip(files, results, strict=True):
        if not isinstance(answer, str):
            ascent.rungs.append(_explained(ascent, answer[0], path, answer[1]))
        elif not ascent.faults:
            # A file that inspection found wrong need not also fail to load.
            ascent.faults.append(answer)


def climb_served(
    ascent: Ascent,
    grpc_address: str,
    http_address: str,
    *,
    version: str = "",
    tick: Tick = lambda: None,
) -> None:
    """The same questions over gRPC, over HTTP, by 32 callers at once, and to the text front."""
    candidate, reference = ascent.candidate, ascent.reference
    assert reference is not None
    file = MODEL_FILES[candidate.served]
    positional = candidate.served == "torchscript"
    with _clients(grpc_address, http_address) as clients:
        grpc, http = (
            WireRung(
                client,
                candidate.triton_name,
                candidate.graph,
                positional=positional,
                version=version,
            )
            for client in clients
        )
        for rung in (grpc, http):
            ascent.rungs.append(
                _explained(ascent, rung, None, compare(reference, rung, file, tick))
            )
        concurrent = ConcurrentRung(grpc)
        smallest = min(SMALLEST_CONCURRENT_BATCH, candidate.graph.max_batch_size)
        with contextlib.closing(concurrent):
            ascent.rungs.append(compare(reference, concurrent, file, tick, smallest_batch=smallest))
        if candidate.front is not None:
            ascent.rungs.append(
                compare_front(candidate, candidate.front, ascent.eager, clients[0], version)
            )


def offline_ticks(candidate: Candidate) -> int:
    """Progress steps of climb_offline."""
    return cells(candidate) * (3 if candidate.target.torchscript else 2)


def served_ticks(candidate: Candidate) -> int:
    return cells(candidate) * 3


def sample_inputs(candidate: Candidate) -> dict[str, Any]:
    """Rows a network is traced with: half padded, of half the longest length."""
    length = max(1, candidate.graph.max_length // 2)
    return candidate.spec.parity.inputs(candidate.artifact, 2, length, "half")


def rung_of(path: Path, candidate: Candidate, config_file: Path) -> Rung:
    """The file as the server will run it. Raises ExportError: it cannot be loaded so."""
    if path.suffix == ".pt":
        return TorchScriptRung(path, candidate.graph)
    config = parse_config(config_file.read_text(encoding="utf-8"))
    if candidate.target.backend == "openvino":
        from export.openvino_rung import OpenVinoRung

        return OpenVinoRung(path, candidate.graph, config)
    return OnnxRung(path, candidate.graph, config)


def _is_fused(candidate: Candidate) -> bool:
    return candidate.target.on_gpu and candidate.spec.exporter == "optimum"


def _explained(ascent: Ascent, rung: Rung, path: Path | None, result: RungResult) -> RungResult:
    """The same result with its causes, when it failed. ``path``: the file, where there is one."""
    if result.passed:
        return result
    assert ascent.reference is not None
    causes = causes_in_answers(ascent.reference, rung)
    if path is not None and path.suffix == ".onnx":
        causes += _file_causes(ascent, path, result)
    result.causes.extend(dict.fromkeys(causes))
    return result


def _file_causes(ascent: Ascent, path: Path, result: RungResult) -> list[str]:
    candidate, reference = ascent.candidate, ascent.reference
    assert reference is not None
    causes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="presage-fresh-") as scratch:
        fresh = Path(scratch) / MODEL_FILES["onnx"]
        try:
            export_onnx(
                candidate.spec.exporter,
                ascent.network,
                candidate.graph,
                sample_inputs(candidate),
                fresh,
                container_limits(),
            )
        except ExportError:
            return []
        # Every row of one question is enough, unless NaN came out of others only.
        nan = any(tensor.nan_mismatches for tensor in result.tensors)
        asked = [question for question in reference.questions if nan or question.rows == 2]
        for question in asked if nan else asked[-1:]:
            sound = overflows(fresh, question.inputs)
            extra = [
                words
                for name, words in overflows(path, question.inputs).items()
                if name not in sound
            ]
            if extra:
                causes.append(f"{extra[0]} is the first to overflow")
                break
        if not candidate.target.reduced:
            causes += causes_in_file(path, fresh)
    return causes


@contextlib.contextmanager
def _clients(grpc_address: str, http_address: str) -> Iterator[Sequence[WireClient]]:
    clients = (WireClient("grpc", grpc_address), WireClient("http", http_address))
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
