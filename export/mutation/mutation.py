"""One way of breaking a staged export, and the cause its refusal must name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.candidate import MODEL_FILES, Candidate
from training.spec import ModelSpec

Kind = Literal["any", "text", "one label", "many labels", "forecast", "horizon", "season"]


@dataclass(frozen=True)
class Staged:
    """A candidate as version 1 of a throw-away repository: what is about to be served."""

    candidate: Candidate
    repository: Path

    @property
    def model_folder(self) -> Path:
        return self.repository / self.candidate.triton_name

    @property
    def model_file(self) -> Path:
        return self.model_folder / "1" / MODEL_FILES["onnx"]

    @property
    def front_version(self) -> Path:
        """The front's version folder; only for text models."""
        front = self.candidate.front
        assert front is not None
        return self.repository / front.triton_name / "1"


@dataclass(frozen=True)
class Mutation:
    """``apply`` breaks the staged files; the refusal must match the regular expression ``cause``.

    ``target``: the precision whose limits judge it, where it is about a reduced one.
    """

    name: str
    kind: Kind
    apply: Callable[[Staged], None]
    cause: str
    target: str = "cpu"


def kinds_of(candidate: Candidate) -> frozenset[Kind]:
    """Which mutations make sense for a candidate."""
    graph, spec = candidate.graph, candidate.spec
    kinds: set[Kind] = {"any"}
    if candidate.front is not None:
        kinds.add("text")
        kinds.add("one label" if _sums_to_one(spec) else "many labels")
    for output in graph.outputs:
        if output.name == "forecast":
            kinds.add("forecast")
            golden = candidate.artifact.golden()
            if 0 < int(golden["season_length"].max()) < graph.max_length:
                kinds.add("season")
            if output.dims[0] > 1:
                kinds.add("horizon")
    return frozenset(kinds)


def _sums_to_one(spec: ModelSpec) -> bool:
    from training.text.text_spec import distribution_faults

    return spec.parity.faults is distribution_faults
