"""The objectives of ``slo.toml``, and which of them a run missed."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from contract.errors import ConfigError
from loadtest.load.figures import Figures, RunFigures
from loadtest.load.triton_statistics import ModelCounts

SLO_FILE = Path(__file__).parent.parent / "slo.toml"
_SHARES = ("error_rate", "queue_share")


@dataclass(frozen=True)
class Objectives:
    """What must hold while ``rate_per_second`` requests come, of one row each. None: no objective.

    error_rate, queue_share, first_request_ratio: at most; the last one is the first request after
    the model was ready, divided by the steady p99. realised_batch: at least, in rows
    """

    rate_per_second: float
    p50_milliseconds: float | None = None
    p95_milliseconds: float | None = None
    p99_milliseconds: float | None = None
    error_rate: float | None = None
    realised_batch: float | None = None
    queue_share: float | None = None
    first_request_ratio: float | None = None


@dataclass(frozen=True)
class Slo:
    """``models`` and ``gateway``: by the model's name in Triton; others have the defaults.

    fleet: {model: rows that a cluster's minute brings}
    """

    default: Objectives
    models: dict[str, Objectives] = field(default_factory=dict)
    gateway_default: Objectives = field(default_factory=lambda: Objectives(1.0))
    gateway: dict[str, Objectives] = field(default_factory=dict)
    fleet: dict[str, int] = field(default_factory=dict)

    def of(self, model: str) -> Objectives:
        return self.models.get(model, self.default)

    def of_gateway(self, model: str) -> Objectives:
        return self.gateway.get(model, self.gateway_default)


@dataclass(frozen=True)
class Verdict:
    """One objective of one model. ``got`` None: not measured, which ``why`` explains."""

    model: str
    objective: str
    expected: str
    got: str | None
    kept: bool
    why: str = ""

    def __str__(self) -> str:
        if self.got is None:
            return f"{self.model}: {self.objective} not measured: {self.why}"
        return f"{self.model}: {self.objective}: expected {self.expected}, got {self.got}"


def read_slo(path: Path = SLO_FILE) -> Slo:
    """Raises ConfigError, which lists every fault at once."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the objectives cannot be read", where=str(path), got=str(error)
        ) from error
    faults: list[str] = []
    default = _objectives(document.pop("default", None), "default", None, faults)
    gateway_table = _table(document.pop("gateway", {}), "gateway", faults)
    gateway_default = _objectives(
        gateway_table.pop("default", {"rate_per_second": 1.0}), "gateway.default", None, faults
    )
    models = _sections(document.pop("models", {}), "models", default, faults)
    gateway = _sections(gateway_table, "gateway", gateway_default, faults)
    fleet = _table(document.pop("fleet", {}), "fleet", faults)
    for name, rows in fleet.items():
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            faults.append(f"fleet.{name}: expected a whole number of rows above 0, got {rows!r}")
    faults += [f"{name}: unknown section" for name in document]
    if faults:
        raise ConfigError("the objectives make no sense", where=str(path), got="; ".join(faults))
    return Slo(default, models, gateway_default, gateway, fleet)


def _sections(
    value: Any, name: str, default: Objectives, faults: list[str]
) -> dict[str, Objectives]:
    return {
        model: _objectives(section, f"{name}.{model}", default, faults)
        for model, section in _table(value, name, faults).items()
    }


def _table(value: Any, name: str, faults: list[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    faults.append(f"{name}: expected a table, got {value!r}")
    return {}


def _objectives(value: Any, name: str, default: Objectives | None, faults: list[str]) -> Objectives:
    """Of one section; what it does not say is as in ``default``."""
    known = [part.name for part in fields(Objectives)]
    if not isinstance(value, Mapping):
        got = "no such section" if value is None else repr(value)
        faults.append(f"{name}: expected a table, got {got}")
        return Objectives(1.0)
    given: dict[str, float] = {}
    for key, number in value.items():
        if key not in known:
            faults.append(f"{name}.{key}: unknown, expected one of {', '.join(known)}")
        elif not _is_number(number) or number < 0 or (key in _SHARES and number > 1):
            limits = "between 0 and 1" if key in _SHARES else "of at least 0"
            faults.append(f"{name}.{key}: expected a number {limits}, got {number!r}")
        else:
            given[key] = float(number)
    base = {} if default is None else {key: getattr(default, key) for key in known}
    merged = base | given
    if not merged.get("rate_per_second", 1.0):
        faults.append(f"{name}.rate_per_second: expected above 0")
    if "rate_per_second" not in merged:
        faults.append(f"{name}.rate_per_second: missing")
        return Objectives(1.0)
    ordered = [merged.get(f"p{q}_milliseconds") for q in (50, 95, 99)]
    told = [value for value in ordered if value is not None]
    if told != sorted(told):
        faults.append(f"{name}: expected p50 ≤ p95 ≤ p99")
    return Objectives(**merged)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def verdicts(slo: Slo, figures: RunFigures) -> list[Verdict]:
    """Every objective of every model that was asked, in the judged stages."""
    found: list[Verdict] = []
    for own in figures.direct:
        objectives = slo.of(own.model)
        found += _latencies(own.model, own, objectives)
        found += _server(own.model, figures.counts.get(own.model, ModelCounts()), objectives)
        found += _first_request(own, figures.first_milliseconds.get(own.model), objectives)
    for own in figures.flows:
        if own.channel == "gateway":
            found += _latencies(f"{own.model} by gateway", own, slo.of_gateway(own.model))
    return found


def wrong_answers(figures: RunFigures) -> list[Verdict]:
    """A wrong answer is one too many, whatever the load."""
    return [
        Verdict(
            f"{own.model} {own.channel}",
            "answers as eager PyTorch gives them",
            "all",
            f"{own.wrong:,} wrong of {own.requests:,}",
            False,
        )
        for own in figures.all_flows
        if own.wrong
    ]


def fleet_verdicts(figures: RunFigures) -> list[Verdict]:
    """The minute's work was answered, all of it, before the minute was over."""
    minute = figures.plan.seconds
    found = []
    for model in dict.fromkeys(own.model for own in figures.all_flows):
        own = [row for row in figures.all_flows if row.model == model]
        asked = sum(row.requests * row.rows for row in own)
        answered = sum(row.answered * row.rows for row in own)
        settled = figures.settled_seconds.get(model, math.inf)
        found.append(
            Verdict(
                model,
                f"{asked:,} rows answered within the minute",
                f"{asked:,} after {minute:g} s",
                f"{answered:,} after {settled:.1f} s",
                answered == asked and settled <= minute,
            )
        )
    return found


def _latencies(name: str, own: Figures, objectives: Objectives) -> list[Verdict]:
    if own.requests == 0:
        return [Verdict(name, "latency", "", None, True, "nothing was due in the judged stages")]
    found = []
    for quantile, got in zip((50, 95, 99), own.milliseconds, strict=True):
        limit = getattr(objectives, f"p{quantile}_milliseconds")
        if limit is not None:
            # Written so that NaN (nothing was answered) is a miss.
            found.append(
                Verdict(name, f"p{quantile}", f"≤ {limit:g} ms", f"{got:.1f} ms", got <= limit)
            )
    limit = objectives.error_rate
    if limit is not None:
        found.append(
            Verdict(
                name,
                "error rate",
                f"≤ {limit:.2%}",
                f"{own.error_rate:.2%} ({own.failures} of {own.requests})",
                own.error_rate <= limit,
            )
        )
    return found


def _server(name: str, counts: ModelCounts, objectives: Objectives) -> list[Verdict]:
    found = []
    if objectives.realised_batch is not None:
        got, limit = counts.realised_batch, objectives.realised_batch
        found.append(
            Verdict(name, "realised batch", f"≥ {limit:g} rows", None, True, "nothing was computed")
            if got is None
            else Verdict(
                name, "realised batch", f"≥ {limit:g} rows", f"{got:.2f} rows", got >= limit
            )
        )
    if objectives.queue_share is not None:
        share, limit = counts.queue_share, objectives.queue_share
        found.append(
            Verdict(name, "queue share", f"≤ {limit:.0%}", None, True, "nobody asked")
            if share is None
            else Verdict(name, "queue share", f"≤ {limit:.0%}", f"{share:.0%}", share <= limit)
        )
    return found


def _first_request(
    own: Figures, first: float | str | None, objectives: Objectives
) -> list[Verdict]:
    limit = objectives.first_request_ratio
    if limit is None:
        return []
    expected = f"≤ {limit:g} × steady p99"
    if not isinstance(first, float):
        return [Verdict(own.model, "first request", expected, None, True, first or "not asked")]
    steady = own.milliseconds[2]
    return [
        Verdict(
            own.model,
            "first request",
            expected,
            f"{first / steady:.2f} × ({first:.1f} of {steady:.1f} ms)",
            first <= limit * steady,
        )
    ]
