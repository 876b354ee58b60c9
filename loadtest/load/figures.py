"""A run's figures: what its flows were asked and answered, stage by stage, and what Triton counted.

Latencies count from the moment a request was due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtest.load.plan import Flow, LoadPlan
from loadtest.load.recorder import ANSWERED, ERROR, NOT_SENT, WRONG, Records
from loadtest.load.shapes import Stage, stage_index
from loadtest.load.triton_statistics import ModelCounts, StatisticsSampler

QUANTILES = (0.5, 0.95, 0.99)
DIRECT = ("gRPC", "HTTP")


@dataclass(frozen=True)
class Figures:
    """Of some requests. ``answered`` were right; milliseconds are theirs: p50, p95, p99.

    offered_per_second: requests that were due; rows: of one request
    sender_late_milliseconds: p99 of how much later than due a request was sent
    """

    model: str
    channel: str
    seconds: float
    requests: int
    answered: int
    errors: int
    wrong: int
    not_sent: int
    milliseconds: tuple[float, float, float]
    sender_late_milliseconds: float
    rows: int = 1

    @property
    def offered_per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def answered_per_second(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> int:
        return self.requests - self.answered

    @property
    def error_rate(self) -> float:
        return self.failures / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class StageFigures:
    """``flows``: of each flow. ``direct``: of each model, gRPC and HTTP together."""

    stage: Stage
    flows: list[Figures]
    direct: list[Figures]
    counts: dict[str, ModelCounts]


@dataclass(frozen=True)
class RunFigures:
    """``stages`` as they were run (a ramp may end early); ``flows``, ``direct``, ``counts``: of the
    judged stages together, of all of them where none is judged.

    all_flows: of the whole run. first_milliseconds: {model: its first request, or why not}
    settled_seconds: {model: when the last request was answered}, from the run's begin
    """

    plan: LoadPlan
    stages: list[StageFigures]
    flows: list[Figures]
    direct: list[Figures]
    all_flows: list[Figures]
    counts: dict[str, ModelCounts]
    first_messages: dict[str, list[str]]
    told: dict[str, str]
    settled_seconds: dict[str, float]
    first_milliseconds: dict[str, float | str] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        return sum(figures.wrong for figures in self.all_flows)

    @property
    def failures(self) -> int:
        return sum(figures.failures for figures in self.all_flows)


def latency_milliseconds(records: Records) -> tuple[float, float, float]:
    """p50, p95, p99 of the answered; NaN where nothing was."""
    seconds = records.seconds[records.outcome == ANSWERED]
    if not len(seconds):
        return (float("nan"),) * 3
    p50, p95, p99 = (float(value) * 1000 for value in np.quantile(seconds, QUANTILES))
    return p50, p95, p99


def make_figures(
    plan: LoadPlan,
    records: Records,
    sampler: StatisticsSampler,
    *,
    begin: float,
    seconds: float,
    told: dict[str, str],
    behind: dict[str, str],
    first_milliseconds: dict[str, float | str],
) -> RunFigures:
    """behind: {front: its classifier}, whose counts are told too. begin: of the run, on the
    sampler's clock. seconds: how long requests were due.
    """
    numbers = stage_index(plan.stages, records.due)
    edges = np.concatenate([[0.0], np.cumsum([stage.seconds for stage in plan.stages])])
    edges = np.minimum(edges, seconds)
    asked = dict.fromkeys(flow.model for flow in plan.flows)
    names = [name for model in asked for name in (model, behind.get(model, "")) if name]

    def counted(chosen: Sequence[int]) -> dict[str, ModelCounts]:
        runs = _runs(chosen)
        spans = [(begin + edges[first], begin + edges[last + 1]) for first, last in runs]
        return {
            name: _added([sampler.between(start, end, name) for start, end in spans])
            for name in names
        }

    ran = [i for i in range(len(plan.stages)) if edges[i + 1] > edges[i]]
    stages = []
    for i in ran:
        own = records.of(numbers == i)
        length = float(edges[i + 1] - edges[i])
        stages.append(
            StageFigures(
                plan.stages[i],
                by_flow(plan, own, length),
                by_model(plan, own, length),
                counted([i]),
            )
        )
    judged = [i for i in ran if plan.stages[i].judged] or ran
    chosen = records.of(np.isin(numbers, judged))
    length = float(sum(edges[i + 1] - edges[i] for i in judged))
    return RunFigures(
        plan=plan,
        stages=stages,
        flows=by_flow(plan, chosen, length),
        direct=by_model(plan, chosen, length),
        all_flows=by_flow(plan, records, seconds),
        counts=counted(judged),
        first_messages={
            plan.flows[number].title: messages
            for number, messages in sorted(records.first_messages.items())
        },
        told=told,
        settled_seconds=_settled(plan, records),
        first_milliseconds=first_milliseconds,
    )


def by_flow(plan: LoadPlan, records: Records, seconds: float) -> list[Figures]:
    return [
        _figures(flow.model, flow.channel, [flow], records.of(records.flow == number), seconds)
        for number, flow in enumerate(plan.flows)
    ]


def by_model(plan: LoadPlan, records: Records, seconds: float) -> list[Figures]:
    """Asked directly: gRPC and HTTP together."""
    models = dict.fromkeys(flow.model for flow in plan.flows if flow.channel in DIRECT)
    figures = []
    for model in models:
        own = [
            (number, flow)
            for number, flow in enumerate(plan.flows)
            if flow.model == model and flow.channel in DIRECT
        ]
        chosen = records.of(np.isin(records.flow, [number for number, _ in own]))
        figures.append(_figures(model, "direct", [flow for _, flow in own], chosen, seconds))
    return figures


def _figures(
    model: str, channel: str, flows: Sequence[Flow], records: Records, seconds: float
) -> Figures:
    sent = records.outcome != NOT_SENT
    late = (records.sent - records.due)[sent]
    return Figures(
        model=model,
        channel=channel,
        seconds=seconds,
        requests=len(records),
        answered=records.count(ANSWERED),
        errors=records.count(ERROR),
        wrong=records.count(WRONG),
        not_sent=records.count(NOT_SENT),
        milliseconds=latency_milliseconds(records),
        sender_late_milliseconds=float(np.quantile(late, 0.99)) * 1000 if len(late) else 0.0,
        rows=max((flow.rows for flow in flows), default=1),
    )


def _settled(plan: LoadPlan, records: Records) -> dict[str, float]:
    settled: dict[str, float] = {}
    for number, flow in enumerate(plan.flows):
        done = records.done[(records.flow == number) & (records.outcome == ANSWERED)]
        if len(done):
            settled[flow.model] = max(settled.get(flow.model, 0.0), float(done.max()))
    return settled


def _runs(chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring stages together: first and last of each run of them."""
    runs: list[tuple[int, int]] = []
    for i in chosen:
        if runs and runs[-1][1] == i - 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs


def _added(parts: Sequence[ModelCounts]) -> ModelCounts:
    total = ModelCounts()
    for part in parts:
        total = total.plus(part)
    return total
