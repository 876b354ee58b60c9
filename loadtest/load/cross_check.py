"""Are our figures those of another client? perf_analyzer and Locust ask the same, in turns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from contract.errors import ServerAnswerError, ServerSetupError, UnknownModelError
from loadtest.hardware import processor
from loadtest.load.locust_run import LoadSettings, make_plan, measure_plan, prepare_answers
from loadtest.load.perf_analyzer import PerfFigures, find_perf_analyzer, run_perf_analyzer
from loadtest.load.plan import LoadPlan
from loadtest.load.reference import read_answers
from loadtest.load.slo import read_slo
from loadtest.served import ServedModel, served_models

ALLOWED_DIFFERENCE = 0.2
# Asked in turn by both, so that both meet the same cache.
POOL_ROWS = 64


@dataclass(frozen=True)
class CrossCheckSettings:
    """``model`` None: the one whose server has most to do for a row, so that the cost of a client,
    which shares the machine, weighs least.
    """

    grpc_address: str
    http_address: str
    repository: Path
    artifacts: Path
    model: str | None = None
    concurrency: int = 8
    rounds: int = 3
    seconds: float = 4.0
    data: Path | None = None


@dataclass(frozen=True)
class CrossCheck:
    """Each round's figures of both clients; ``why_not``: why perf_analyzer was not asked."""

    model: str
    ours: list[PerfFigures] = field(default_factory=list)
    theirs: list[PerfFigures] = field(default_factory=list)
    why_not: str = ""

    def ratio(self, of: Callable[[PerfFigures], float]) -> float:
        """Ours to theirs, the rounds' median."""
        return median(
            of(one) / of(other) for one, other in zip(self.ours, self.theirs, strict=True)
        )

    @property
    def agrees(self) -> bool | None:
        """Requests a second and the median latency, within the allowed difference. None: unknown.

        The slowest hundredth of a short round is noise: it is told, not judged.
        """
        if self.why_not:
            return None
        ratios = (
            self.ratio(lambda one: one.requests_per_second),
            self.ratio(lambda one: one.p50_milliseconds),
        )
        return all(1 - ALLOWED_DIFFERENCE <= ratio <= 1 + ALLOWED_DIFFERENCE for ratio in ratios)


def cross_check(settings: CrossCheckSettings) -> CrossCheck:
    """Raises PresageError: our own run failed, or perf_analyzer's request did."""
    model = _model(settings)
    try:
        program = find_perf_analyzer()
    except ServerSetupError as error:
        return CrossCheck(model.name, why_not=str(error))
    ours: list[PerfFigures] = []
    theirs: list[PerfFigures] = []
    with tempfile.TemporaryDirectory(prefix="presage-loadtest-") as folder:
        plan = make_plan(_as_load(settings), [model], read_slo(), folder)
        plan.write()
        prepare_answers(plan, progress=False)
        mix = read_answers(plan.answers_file)[model.name].mix
        inputs = [mix.items[item] for item in mix.order[:POOL_ROWS]]
        for _ in range(settings.rounds):
            theirs.append(
                run_perf_analyzer(
                    program,
                    model,
                    inputs,
                    grpc_address=settings.grpc_address,
                    concurrency=settings.concurrency,
                    seconds=settings.seconds,
                )
            )
            ours.append(_ask_ourselves(plan, model))
    return CrossCheck(model.name, ours, theirs)


def _model(settings: CrossCheckSettings) -> ServedModel:
    models = {one.name: one for one in served_models(settings.repository, settings.artifacts)}
    if settings.model is None:
        # Series: a text would be answered from the front's cache.
        series = [one for one in models.values() if not one.reads_text]
        return max(series or models.values(), key=lambda one: one.manifest.graph.max_length)
    if settings.model not in models:
        raise UnknownModelError(
            f"unknown model {settings.model!r}", where="--model", expected=", ".join(models)
        )
    return models[settings.model]


def _as_load(settings: CrossCheckSettings) -> LoadSettings:
    return LoadSettings(
        settings.grpc_address,
        settings.http_address,
        settings.repository,
        settings.artifacts,
        users=settings.concurrency,
        seconds=settings.seconds,
        channels=("gRPC",),
        data=settings.data,
        pool_rows=POOL_ROWS,
    )


def _ask_ourselves(plan: LoadPlan, model: ServedModel) -> PerfFigures:
    run = measure_plan(plan, [model], {}, progress=False)
    (own,) = run.flows
    if own.failures:
        told = next(iter(run.first_messages.values()), [""])
        raise ServerAnswerError(f"{own.failures} of {own.requests} requests failed", got=told[0])
    p50, _, p99 = own.milliseconds
    return PerfFigures(own.answered_per_second, p50, p99)


def cross_check_table(result: CrossCheck, settings: CrossCheckSettings) -> str:
    """Markdown."""
    what = (
        f"`python -m loadtest cross-check`: {result.model} over gRPC, {settings.concurrency} at"
        f" a time, one row each, the same {POOL_ROWS} rows in turn"
    )
    if result.why_not:
        return f"{what}.\n\nperf_analyzer: not measured: {result.why_not}"
    sides = (result.ours, result.theirs)
    rows = [
        ("requests/s", "{:,.0f}", lambda one: one.requests_per_second),
        ("p50, ms", "{:.2f}", lambda one: one.p50_milliseconds),
        ("p99, ms", "{:.2f}", lambda one: one.p99_milliseconds),
    ]
    lines = [
        f"{what}; {settings.rounds} interleaved rounds of {settings.seconds:g} s, medians.",
        "",
        "| | Locust (ours) | perf_analyzer | ratio |",
        "|---|---|---|---|",
    ]
    for name, form, of in rows:
        ours, theirs = (median(map(of, side)) for side in sides)
        lines.append(
            f"| {name} | {form.format(ours)} | {form.format(theirs)} | {result.ratio(of):.2f} |"
        )
    ours, theirs = (median(one.requests_per_second for one in side) for side in sides)
    verdict = "agree" if result.agrees else "DO NOT agree"
    lines += [
        "",
        f"Rate and median latency {verdict} within {ALLOWED_DIFFERENCE:.0%}. A request by Locust"
        f" takes {1000 / ours - 1000 / theirs:+.2f} ms of the machine beside one by perf_analyzer,"
        f" which is written in C++ and checks no answer. Hardware: "
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, shared by server and client; load"
        f" average {os.getloadavg()[0]:.1f}.",
    ]
    return "\n".join(lines)
