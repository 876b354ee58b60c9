"""The tables of ``compare``: rates, ratios, verdicts, and what the time went to."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from loadtest.hardware import hardware
from loadtest.speed.compare import Comparison
from loadtest.speed.facts import Fact
from loadtest.speed.questions import CompareSettings
from loadtest.speed.side import Rounds

DEFINITIONS = """\
**Eager** is FastAPI and eager PyTorch: the model loaded once, one request one forward pass (a job \
log: the same windows), nothing remembered, torch's threads the better of one and all cores. \
**Caches off**: a twin of the front that remembers no answer between its calls \
(`text_cache_entries` 0), and no response cache of Triton's; equal texts within one dynamic batch \
are still asked once, which is batching. **Caches on**: the front as published. Triton is asked \
directly over gRPC. Callers of both kinds are one event loop each that writes requests made \
beforehand; their CPU time is in the last table. × is the median of the rounds' own ratios \
(lowest–highest)."""


def ratios(side: Rounds, eager: Rounds) -> list[float]:
    """How many times eager's rate, round by round."""
    return [ours / theirs for ours, theirs in zip(side.rates, eager.rates, strict=True)]


def verdict(value: float, target: float | None, *, at_most: bool = False) -> str:
    """``met``, ``missed``, or nothing where there is no target."""
    if target is None:
        return ""
    return "met" if (value <= target if at_most else value >= target) else "**missed**"


def compare_report(
    comparisons: Sequence[Comparison], facts: Sequence[Fact], settings: CompareSettings
) -> str:
    """Markdown of everything."""
    parts = [
        f"`python -m loadtest compare`, {settings.rounds} interleaved rounds of "
        f"{settings.seconds:g} s a side, medians; {hardware()}, shared by callers, servers and "
        "baseline.",
        DEFINITIONS,
    ]
    if comparisons:
        parts.append(_rates(comparisons))
    if facts:
        parts.append(_facts(facts))
    for one in comparisons:
        parts.append(_where(one))
    return "\n\n".join(parts)


def _rates(comparisons: Sequence[Comparison]) -> str:
    lines = [
        "| question, callers | side | caches | rate | × eager | target | | p50 / p99, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        eager = one.sides[0][2]
        for name, caches, rounds in one.sides:
            own = ratios(rounds, eager)
            ours = name.startswith("Presage")
            target = one.targets.get(caches.partition(",")[0]) if ours else None
            p50, p99 = np.quantile(rounds.latencies, [0.5, 0.99]) * 1000
            span = f" ({min(own):.1f}–{max(own):.1f})" if rounds is not eager else ""
            side = f"{name}, {one.threads} torch threads" if rounds is eager else name
            lines.append(
                f"| {one.title}, {one.concurrency} | {side} | {caches} "
                f"| {median(rounds.rates):,.0f} {one.unit} | {median(own):.1f}{span} "
                f"| {'' if target is None else f'≥ {target:g}'} | {verdict(median(own), target)} "
                f"| {p50:.1f} / {p99:.1f} |"
            )
        for name, why in one.absent.items():
            lines.append(f"| {one.title} | {name} | | not measured: {why} | | | | |")
    return "\n".join(lines)


def _facts(facts: Sequence[Fact]) -> str:
    lines = ["| what | measured | target | | how |", "|---|---|---|---|---|"]
    for fact in facts:
        lines.append(f"| {fact.what} | {fact.told} | {fact.target} | {fact.verdict} | {fact.how} |")
    return "\n".join(lines)


def _where(one: Comparison) -> str:
    """CPU milliseconds a row by process; Triton's queue and compute; the front's own split."""
    lines = [
        f"**{one.title}**: what the time went to. {one.note}".rstrip(),
        "",
        "| side | caches | CPU, ms a row | of it | rows a batch | queue / compute, ms a request "
        "| front: mask / tokenize / classifier, ms a row | model rows a row | padding |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, caches, rounds in one.sides:
        rows = max(1, rounds.rows)
        each = {who: 1000 * spent / rows for who, spent in rounds.cpu_seconds.items()}
        shares = ", ".join(f"{who} {spent:.2f}" for who, spent in each.items())
        lines.append(
            f"| {name} | {caches} | {sum(each.values()):.2f} | {shares} | {_triton(rounds)} "
            f"| {_front(rounds)} |"
        )
    checked = "; ".join(f"{name}: {what}" for name, what in one.checked.items())
    return "\n".join(lines) + (f"\n\nChecked against eager first: {checked}." if checked else "")


def _triton(rounds: Rounds) -> str:
    split = rounds.split
    if not split.get("requests"):
        return " | "
    requests = split["requests"]
    return (
        f"{requests / max(1, split['executions']):.1f} "
        f"| {1000 * split['queue_seconds'] / requests:.2f} / "
        f"{1000 * split['compute_seconds'] / requests:.2f}"
    )


def _front(rounds: Rounds) -> str:
    split, rows = rounds.split, max(1, rounds.rows)
    if "tokenize" not in split:
        return " | | "
    sent = split.get("text", 0) + split.get("padding", 0)
    return (
        " / ".join(f"{1000 * split[step] / rows:.2f}" for step in ("mask", "tokenize", "classify"))
        + f" | {split.get('classifier', 0) / rows:.2f}"
        + f" | {split.get('padding', 0) / sent if sent else 0:.0%}"
    )
