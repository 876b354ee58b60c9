"""A run's figures as text: for a terminal, and for a page of Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from loadtest.hardware import processor
from loadtest.load.figures import Figures, RunFigures, StageFigures
from loadtest.load.slo import Slo, Verdict
from loadtest.load.triton_statistics import ModelCounts

HEADER = (
    "model",
    "via",
    "offered/s",
    "answered/s",
    "failed",
    "wrong",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "batch",
    "queue",
    "first / p99",
)


def load_rows(run: RunFigures) -> list[tuple[str, ...]]:
    """One row a model and channel; what Triton counted stands in the model's first row."""
    rows = []
    told: set[str] = set()
    for own in run.flows:
        first = own.model not in told and own.channel != "gateway"
        told |= {own.model} if first else set()
        counts = run.counts.get(own.model, ModelCounts())
        server = _server_cells(run, own, counts) if first else ("", "", "")
        rows.append(
            (
                own.model,
                own.channel,
                f"{own.offered_per_second:,.2f}",
                f"{own.answered_per_second:,.2f}",
                f"{own.failures:,}",
                f"{own.wrong:,}",
                *(milliseconds(value) for value in own.milliseconds),
                *server,
            )
        )
    return rows


def _server_cells(run: RunFigures, own: Figures, counts: ModelCounts) -> tuple[str, str, str]:
    first = run.first_milliseconds.get(own.model)
    steady = next(row.milliseconds[2] for row in run.direct if row.model == own.model)
    ratio = f"{first / steady:.2f}" if isinstance(first, float) else "not measured"
    batch, share = counts.realised_batch, counts.queue_share
    return (
        "–" if batch is None else f"{batch:.2f}",
        "–" if share is None else f"{share:.0%}",
        ratio,
    )


def milliseconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.1f}"


def load_table(run: RunFigures, verdicts: Sequence[Verdict] = ()) -> str:
    """For a terminal."""
    lines = [title(run), *columns([HEADER, *load_rows(run)])]
    lines += [f"  {flow}: {told[0]}" for flow, told in run.first_messages.items() if told]
    lines += ["", *verdict_lines(verdicts)] if verdicts else []
    return "\n".join([*lines, "", *(f"{note}" for note in notes(run))])


def load_markdown(run: RunFigures, verdicts: Sequence[Verdict] = ()) -> str:
    """The same for a page."""
    lines = [title(run), ""]
    lines += [f"| {' | '.join(row)} |" for row in (HEADER, ["---"] * len(HEADER), *load_rows(run))]
    lines += ["", *verdict_lines(verdicts)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(run)), ""])


def title(run: RunFigures) -> str:
    plan = run.plan
    if plan.loop == "closed":
        what = f"{plan.senders} users that ask again once answered (closed loop)"
    else:
        arrivals = "Poisson" if plan.process == "poisson" else "even"
        what = f"{plan.shape}, {arrivals} arrivals (open loop)"
    judged = [stage.stage for stage in run.stages if stage.stage.judged]
    if judged and len(judged) < len(run.stages):
        which = ", ".join(stage.name for stage in judged)
        told = f"; figures of {which}, {sum(stage.seconds for stage in judged):.0f} s"
    else:
        told = ""
    return f"{what}, {plan.seconds:.0f} s{told}"


def notes(run: RunFigures) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    late = max((own.sender_late_milliseconds for own in run.flows), default=0.0)
    told = [f"{model}: {text}" for model, text in run.told.items()]
    told.append(
        "Latency counts from when a request was due. failed: errors, wrong answers and what could"
        " not be sent in time; every answer was held against eager PyTorch's."
        if run.plan.loop == "open"
        else "Latency counts from sending; every answer was held against eager PyTorch's."
    )
    if run.plan.loop == "open":
        told.append(f"Requests left at most {late:.1f} ms after they were due (p99).")
    told.append(
        f"Hardware: {processor()}, {cores} cores, shared by server and load test; load average"
        f" {os.getloadavg()[0]:.1f}."
    )
    return told


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    missed = [verdict for verdict in verdicts if not verdict.kept]
    unmeasured = [verdict for verdict in verdicts if verdict.got is None]
    measured = len(verdicts) - len(unmeasured)
    if missed:
        lines = [f"{len(missed)} of {measured} objectives missed:"]
        lines += [f"  missed {verdict}" for verdict in missed]
    else:
        lines = [f"all {measured} objectives kept"]
    return lines + [f"  {verdict}" for verdict in unmeasured]


RAMP_HEADER = ("model", "via", "objective held up to", "followed up to", "broke at", "because")


def ramp_row(run: RunFigures, slo: Slo) -> tuple[str, ...]:
    """Of a ramp over one model: the highest rates, in requests a second."""
    held = followed = broke = math.nan
    because = "it did not: the ramp ended first"
    limit = slo.of(run.plan.flows[0].model).p99_milliseconds or math.inf
    for stage in run.stages:
        own = total(stage)
        if own.requests == 0:
            continue
        reason = _broken_by(own, run.plan.break_milliseconds)
        if reason:
            broke, because = own.offered_per_second, reason
            break
        followed = own.offered_per_second
        if own.milliseconds[2] <= limit and math.isnan(broke):
            held = followed
    channels = ", ".join(dict.fromkeys(flow.channel for flow in run.plan.flows))
    rates = (
        f"{value:,.1f}/s" if not math.isnan(value) else "–" for value in (held, followed, broke)
    )
    return (run.plan.flows[0].model, channels, *rates, because)


def total(stage: StageFigures) -> Figures:
    """Of a stage of one model: what was asked directly, else by the gateway."""
    return stage.direct[0] if stage.direct else stage.flows[0]


def _broken_by(own: Figures, limit: float) -> str:
    if own.failures > 0.01 * own.requests:
        return f"{own.failures} of {own.requests} failed ({own.not_sent} could not be sent)"
    if 0 < limit < own.milliseconds[2]:
        return f"p99 {own.milliseconds[2]:,.0f} ms, above {limit:,.0f} ms"
    return ""


def ramp_table(rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(columns([RAMP_HEADER, *rows]))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = range(2, len(rows[0]))
    lines = [
        "  ".join(
            cell.rjust(width) if i in numeric and len(rows[0]) == len(HEADER) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "─" * max(len(line) for line in lines))
    return lines
