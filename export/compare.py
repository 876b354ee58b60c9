"""What each target costs and gives on this machine: size, decisions, speed against eager.

All variants are timed in one run, one call of each in turn, so that whatever else the machine
does hits all of them; medians count.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contract.errors import PresageError
from export.candidate import Candidate
from export.config_pbtxt import CONFIG_FILE
from export.gate import export_files
from export.grid import Reference
from export.judge import rung_of
from export.ladder import Rung
from export.parity import compare
from export.target import TARGETS
from export.verdict import RungResult
from export.version_folder import stage
from training.spec import Arrays

BATCHES = (1, 8)
# Long enough that a call's own cost is seen above the clock's.
_WARM_UP_CALLS = 2


@dataclass
class Variant:
    """One way to run the same network. ``refused``: why the gate would not publish it."""

    name: str
    rung: Rung
    size_bytes: int
    result: RungResult | None = None
    refused: str | None = None


def compare_targets(candidate: Candidate, *, rounds: int, progress: bool = True) -> str:
    """Export every target of one run and measure them; the table as text."""
    from tqdm import tqdm

    with tempfile.TemporaryDirectory(prefix="presage-compare-") as scratch:
        bar = tqdm(total=len(TARGETS) + rounds, desc=candidate.title, disable=not progress)
        with bar:
            variants, absent = _variants(candidate, Path(scratch), bar)
            length = candidate.graph.max_length
            inputs = {
                batch: candidate.spec.parity.inputs(candidate.artifact, batch, length, "none")
                for batch in BATCHES
            }
            seconds = _interleaved(variants, inputs, rounds, bar)
    return _table(candidate, variants, absent, seconds, rounds)


def _variants(
    candidate: Candidate, scratch: Path, bar: Any
) -> tuple[list[Variant], dict[str, str]]:
    """Eager and every target that can be built here; those that cannot, and why."""
    variants: list[Variant] = []
    absent: dict[str, str] = {}
    reference: Reference | None = None
    for target in TARGETS.values():
        folder = scratch / target.name
        one = dataclasses.replace(candidate, target=target, folder=folder)
        try:
            ascent = export_files(one)
            if reference is None:
                reference = Reference.compute(one, ascent.eager, lambda: None)
                weights = sum(p.numel() * p.element_size() for p in ascent.network.parameters())
                variants.append(Variant("eager PyTorch", ascent.eager, weights))
            stage(one, folder / "repository")
            config = folder / "repository" / one.triton_name / CONFIG_FILE
            files = [one.file("onnx"), *([one.file("torchscript")] if target.torchscript else [])]
            for path in files:
                rung = rung_of(path, one, config)
                held = dataclasses.replace(reference, candidate=one)
                result = compare(held, rung, path.name, lambda: None)
                name = target.name + (" (TorchScript)" if path.suffix == ".pt" else "")
                size = path.stat().st_size
                variants.append(Variant(name, rung, size, result, result.complaint()))
        except PresageError as error:
            absent[target.name] = str(error)
        bar.update()
    return variants, absent


def _interleaved(
    variants: list[Variant], inputs: dict[int, Arrays], rounds: int, bar: Any
) -> dict[tuple[str, int], float]:
    """Median seconds of one call per variant and batch, all on one thread as served."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken: dict[tuple[str, int], list[float]] = {}
    try:
        for number in range(_WARM_UP_CALLS + rounds):
            # The order turns: none always runs after the same one.
            turned = variants[number % len(variants) :] + variants[: number % len(variants)]
            for batch, rows in inputs.items():
                for variant in turned:
                    started = time.perf_counter()
                    variant.rung.run(rows)
                    spent = time.perf_counter() - started
                    if number >= _WARM_UP_CALLS:
                        taken.setdefault((variant.name, batch), []).append(spent)
            if number >= _WARM_UP_CALLS:
                bar.update()
    finally:
        torch.set_num_threads(threads)
    return {key: statistics.median(values) for key, values in taken.items()}


def _table(
    candidate: Candidate,
    variants: list[Variant],
    absent: dict[str, str],
    seconds: dict[tuple[str, int], float],
    rounds: int,
) -> str:
    speeds = "".join(f" {f'batch {batch}':>15}" for batch in BATCHES)
    lines = [
        f"{candidate.title}: length {candidate.graph.max_length}, 1 thread, medians of {rounds}"
        " interleaved rounds",
        f"{'variant':<18} {'MB':>7} {'decisions equal':>16} {'surest flip':>11}{speeds}  gate",
    ]
    eager = variants[0]
    for variant in variants:
        result = variant.result
        equal = "-" if result is None else f"{1 - result.flipped / max(1, result.decisions):.3%}"
        margin = "-" if result is None else f"{result.widest_flip_margin:.3f}"
        speed = "".join(
            f" {seconds[variant.name, batch] * 1000:>8.2f} ms"
            f" {seconds[eager.name, batch] / seconds[variant.name, batch]:>3.1f}"
            for batch in BATCHES
        )
        verdict = "" if result is None else ("passes" if variant.refused is None else "refused")
        lines.append(
            f"{variant.name:<18} {variant.size_bytes / 1e6:>7.1f} {equal:>16} {margin:>11}{speed}"
            f"  {verdict}"
        )
    lines += [f"{variant.name}: {variant.refused}" for variant in variants if variant.refused]
    lines += [f"{name}: not here: {reason}" for name, reason in absent.items()]
    return "\n".join(lines)
