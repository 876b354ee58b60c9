"""Breaks good exports in every known way and lets the gate judge them: ``caught N of N``.

A gate that has never refused anything proves nothing. Each mutation must be refused, and with the
cause named; the unbroken export must pass. The files are broken before any proof is made, so it
is not a checksum that catches them.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import PresageError
from export.candidate import REPORT_FILE, Candidate
from export.gate import export_files
from export.judge import Ascent, judge
from export.mutation.forecast_mutations import FORECAST_MUTATIONS
from export.mutation.graph_mutations import GRAPH_MUTATIONS
from export.mutation.mutation import Mutation, Staged, kinds_of
from export.mutation.repository_mutations import REPOSITORY_MUTATIONS
from export.mutation.text_mutations import TEXT_MUTATIONS
from export.publish import require_proof
from export.report import write_report
from export.target import TARGETS
from export.version_folder import stage

CATALOGUE = (*GRAPH_MUTATIONS, *TEXT_MUTATIONS, *FORECAST_MUTATIONS, *REPOSITORY_MUTATIONS)
_LONGEST_REASON = 150


@dataclass(frozen=True)
class Outcome:
    """``refusal``: why the gate refused, None when it did not. ``named``: it says the cause."""

    mutation: str
    model: str
    refusal: str | None
    named: bool

    @property
    def caught(self) -> bool:
        return self.refusal is not None and self.named


def run_suite(
    ascent: Ascent,
    mutations: Sequence[Mutation] = CATALOGUE,
    tick: Callable[[str], object] = lambda name: None,
) -> list[Outcome]:
    """Every mutation that makes sense for one exported candidate. Raises PresageError when the
    unbroken export does not pass: nothing could be learnt from refusals then."""
    candidate = ascent.candidate
    unbroken = _refusal(ascent, candidate, lambda staged: None)
    if unbroken is not None:
        raise PresageError(f"{candidate.title}: the unbroken export is refused", got=unbroken)
    kinds = kinds_of(candidate)
    outcomes = []
    for mutation in mutations:
        if mutation.kind not in kinds:
            continue
        tick(mutation.name)
        # The file stays what it is; only the limits are another target's.
        judged = dataclasses.replace(
            candidate, target=TARGETS[mutation.target], folder=candidate.folder
        )
        refusal = _refusal(ascent, judged, mutation.apply)
        outcomes.append(_outcome(mutation.name, mutation.cause, candidate, refusal))
    outcomes.append(
        _outcome(
            "file changed after its proof",
            r"the parity report is about another model\.onnx",
            candidate,
            _changed_after_proof(ascent),
        )
    )
    return outcomes


def main(candidates: Sequence[Candidate], *, progress: bool) -> int:
    """Export each candidate, break it in every way, print the table; 0 when all were caught."""
    from tqdm import tqdm

    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="presage-selftest-") as scratch:
        for candidate in candidates:
            own = dataclasses.replace(candidate, folder=Path(scratch) / candidate.graph.triton_name)
            with tqdm(total=len(CATALOGUE), unit="break", disable=not progress) as bar:

                def tick(name: str, bar: tqdm = bar, title: str = candidate.title) -> None:  # type: ignore[type-arg]
                    bar.set_description(f"{title}: {name}")
                    bar.update()

                outcomes += run_suite(export_files(own), tick=tick)
    print(table(outcomes))
    return 0 if all(outcome.caught for outcome in outcomes) else 1


def table(outcomes: Sequence[Outcome]) -> str:
    """One line per mutation, and ``caught N of N``."""
    lines = [f"{'broken export':<40} {'model':<26} refused because"]
    for one in outcomes:
        reason = " ".join((one.refusal or "NOT CAUGHT").split())
        if one.refusal is not None and not one.named:
            reason = f"CAUSE NOT NAMED: {reason}"
        if len(reason) > _LONGEST_REASON:
            reason = reason[: _LONGEST_REASON - 1] + "…"
        lines.append(f"{one.mutation:<40} {one.model:<26} {reason}")
    caught = sum(outcome.caught for outcome in outcomes)
    lines.append(f"caught {caught} of {len(outcomes)}")
    return "\n".join(lines)


def _outcome(name: str, cause: str, candidate: Candidate, refusal: str | None) -> Outcome:
    named = refusal is not None and re.search(cause, refusal) is not None
    return Outcome(name, candidate.title, refusal, named)


def _refusal(ascent: Ascent, candidate: Candidate, apply: Callable[[Staged], None]) -> str | None:
    with tempfile.TemporaryDirectory(prefix="presage-broken-") as scratch:
        repository = Path(scratch)
        stage(candidate, repository)
        apply(Staged(candidate, repository))
        try:
            return judge(candidate, repository, ascent=ascent).complaint()
        except PresageError as error:
            return str(error)


def _changed_after_proof(ascent: Ascent) -> str | None:
    """A report about the good file, then one more byte: publishing must refuse."""
    candidate = ascent.candidate
    path = candidate.file("onnx")
    contents = path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="presage-broken-") as scratch:
        stage(candidate, Path(scratch))
        write_report(judge(candidate, Path(scratch), ascent=ascent), candidate.folder)
    try:
        path.write_bytes(contents + b"\0")
        require_proof(candidate)
    except PresageError as error:
        return str(error)
    finally:
        path.write_bytes(contents)
        (candidate.folder / REPORT_FILE).unlink()
    return None
