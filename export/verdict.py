"""What one rung of the ladder found, and whether that is allowed. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field

# Half decades from 1e-12 to 1e2; the first bin also holds exact zeros, the last all above.
HISTOGRAM_EDGES = tuple(10.0 ** (exponent / 2) for exponent in range(-24, 5))


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
    text: str = ""


@dataclass(frozen=True)
class WorstRow:
    """One of the rows that differ most, for a reviewer to look at."""

    tensor: str
    cell: str
    row: int
    difference: float
    text: str


@dataclass(frozen=True)
class TensorResult:
    """|Δ| to eager over the grid: in the tolerance's unit, and the worst row's in the output's own.

    ``histogram``: values per bin between HISTOGRAM_EDGES (one more than there are edges).
    """

    name: str
    maximum: float
    percentile_99_9: float
    allowed_maximum: float
    allowed_percentile_99_9: float
    worst_cell: str
    nan_mismatches: int
    maximum_own_unit: float = 0.0
    unit: str = ""
    relative_to_input: bool = False
    histogram: tuple[int, ...] = ()

    @property
    def passed(self) -> bool:
        return (
            self.maximum <= self.allowed_maximum
            and self.percentile_99_9 <= self.allowed_percentile_99_9
            and self.nan_mismatches == 0
        )

    def complaint(self) -> str | None:
        if self.nan_mismatches:
            return f"{self.name}: {self.nan_mismatches} values are NaN or infinite in one only"
        if self.passed:
            return None
        unit = " of the window's spread" if self.relative_to_input else ""
        return (
            f"{self.name} differs by {self.maximum:.1e}{unit} (99.9%: {self.percentile_99_9:.1e})"
            f" at {self.worst_cell}, allowed {self.allowed_maximum:.1e}"
            f" ({self.allowed_percentile_99_9:.1e})"
        )


@dataclass(frozen=True)
class Stability:
    """Largest differences of one output. ``alone``: to the same rows among strangers;
    ``repeats``: between answers to the same batch. Unit: the tolerance's."""

    name: str
    alone: float
    repeats: float
    allowed: float
    worst_row: int

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return self.alone <= self.allowed and self.repeats <= self.allowed

    def complaint(self) -> str | None:
        if not self.alone <= self.allowed:
            return (
                f"rows of a batch are mixed: {self.name} of row {self.worst_row} differs by"
                f" {self.alone:.1e} between alone and among strangers, allowed {self.allowed:.1e}"
            )
        if not self.repeats <= self.allowed:
            return (
                f"not deterministic: {self.name} of the same batch differs by {self.repeats:.1e}"
                f", allowed {self.allowed:.1e}"
            )
        return None


@dataclass(frozen=True)
class RungResult:
    """``served_by`` says how it ran: provider, optimisation level, precision, threads."""

    rung: str
    against: str
    file: str
    cells: int
    rows: int
    seconds: float
    tensors: list[TensorResult]
    decisions: int
    flipped: int
    served_by: str = ""
    allowed_flip_share: float = 0.0
    allowed_flip_margin: float = 0.0
    widest_flip_margin: float = 0.0
    flips: list[Flip] = field(default_factory=list)
    errors: list[CellError] = field(default_factory=list)
    # What no answer may be, whatever eager says.
    faults: list[str] = field(default_factory=list)
    stability: list[Stability] = field(default_factory=list)
    worst: list[WorstRow] = field(default_factory=list)
    # What went wrong with the export, as far as the answers and the file tell.
    causes: list[str] = field(default_factory=list)

    @property
    def flips_passed(self) -> bool:
        return self.flipped <= self.allowed_flip_share * self.decisions and (
            self.flipped == 0 or self.widest_flip_margin <= self.allowed_flip_margin
        )

    @property
    def passed(self) -> bool:
        return (
            not self.errors
            and not self.faults
            and self.flips_passed
            and all(tensor.passed for tensor in self.tensors)
            and all(result.passed for result in self.stability)
        )

    @property
    def cells_per_second(self) -> float:
        return self.cells / self.seconds if self.seconds > 0 else 0.0

    @property
    def closest_tensor(self) -> TensorResult | None:
        """The output that comes closest to what is allowed (or goes beyond)."""
        return max(
            self.tensors, key=lambda one: one.maximum / (one.allowed_maximum or 1.0), default=None
        )

    def complaint(self) -> str | None:
        """The cause where it is known, then what is wrong first; None when it passed."""
        symptom = self._symptom()
        if symptom is None:
            return None
        return "; ".join([*self.causes, symptom])

    def _symptom(self) -> str | None:
        if self.errors:
            first = self.errors[0]
            failed = f"{len(self.errors)} of {self.cells} cells failed"
            return f"{failed}, first {first.cell}: {first.message}"
        if self.faults:
            return self.faults[0]
        nan = next((tensor for tensor in self.tensors if tensor.nan_mismatches), None)
        if nan is not None:
            return nan.complaint()
        if not self.flips_passed:
            return self._flip_complaint()
        complaints = [tensor.complaint() for tensor in self.tensors]
        complaints += [result.complaint() for result in self.stability]
        return next((complaint for complaint in complaints if complaint is not None), None)

    def _flip_complaint(self) -> str:
        where = f" at {self.flips[0].cell}" if self.flips else ""
        if self.allowed_flip_share == 0:
            return f"{self.flipped} of {self.decisions} decisions flipped{where}, allowed 0"
        share = self.flipped / max(1, self.decisions)
        return (
            f"decision limit: {self.flipped} of {self.decisions} decisions flipped ({share:.2%}),"
            f" the surest by a margin of {self.widest_flip_margin:.3f}{where}; allowed"
            f" {self.allowed_flip_share:.1%}, margin {self.allowed_flip_margin:g}"
        )
