"""The table that ends the demo: quality, parity, speed and one answered question per model."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from contract.errors import ServerUnavailableError
from loadtest.demo_answers import DemoAnswer, ask_one
from loadtest.eager_process import EagerProcess
from loadtest.hardware import processor
from loadtest.measure import CONCURRENCY, ROUNDS, Measurement, measure
from loadtest.served import ServedModel, ready_models, served_models

HEADER = (
    "model",
    "quality (simplest baseline)",
    "parity: worst difference, flipped",
    "p50 / p99",
    "requests/s",
    "to eager PyTorch: 1 caller",
    f"{CONCURRENCY} callers",
)
MARKDOWN_FILE = Path("build/demo.md")


@dataclass(frozen=True)
class ClosingTable:
    rows: list[tuple[str, ...]]
    answers: list[DemoAnswer]
    notes: list[str]


def make_closing_table(
    *,
    grpc_address: str,
    http_address: str,
    repository: Path,
    artifacts: Path,
    seconds: float = 20.0,
    progress: bool = True,
) -> ClosingTable:
    """Measure and ask every published model that the server has ready, in about ``seconds``.

    Raises:
        ServerUnavailableError: no server, or a published model is not served.
        ArtifactMissingError: nothing published. ServerAnswerError: a request failed.
    """
    models = served_models(repository, artifacts)
    ready = ready_models(http_address)
    absent = [model.name for model in models if model.name not in ready]
    if absent:
        raise ServerUnavailableError(
            "published models are not served",
            where=http_address,
            expected=", ".join(model.name for model in models),
            got=f"without {', '.join(absent)}",
            next_command="restart the server: python -m embedded_triton down, then up --detach",
        )
    rows = []
    eager = EagerProcess(repository, artifacts)
    try:
        eager.start()
        # Asked while the baseline imports torch.
        answers = [ask_one(model, f"grpc://{grpc_address}") for model in models]
        eager.wait()
        with tqdm(total=len(models) * (ROUNDS + 1), desc="measure", disable=not progress) as bar:
            for model in models:
                bar.set_postfix_str(model.name)
                figures = measure(
                    model,
                    grpc_address,
                    eager,
                    seconds=seconds / len(models),
                    step_done=bar.update,
                )
                rows.append(_row(model, figures))
    finally:
        eager.stop()
    return ClosingTable(rows, answers, _notes())


def _row(model: ServedModel, figures: Measurement) -> tuple[str, ...]:
    triton = figures.triton
    return (
        f"{model.name} v{model.version}",
        quality_of(model),
        parity_of(model),
        f"{triton.p50_milliseconds:.1f} / {triton.p99_milliseconds:.1f} ms",
        f"{triton.requests_per_second:,.0f}",
        f"{figures.latency_ratio:.1f}×",
        f"{figures.throughput_ratio:.1f}×",
    )


def quality_of(model: ServedModel) -> str:
    """``F1 0.912 (keyword rule 0.574)``, with a word where the model is not better."""
    if not model.manifest.quality:
        return "not measured"
    first = model.manifest.quality[0]
    better = (first.value > first.baseline_value) == first.higher_is_better
    worse = "" if better and first.value != first.baseline_value else ", NOT better"
    return f"{first.metric} {first.value:.3f} ({first.baseline} {first.baseline_value:.3f}{worse})"


def parity_of(model: ServedModel) -> str:
    """``passed: 3.1e-06, 0 of 2,304``, from the report the version was published with."""
    report = model.parity_report()
    if report is None:
        return "no report"
    verdict = "passed" if report["passed"] else "FAILED"
    return (
        f"{verdict}: {report['worst']['difference']:.1e},"
        f" {report['flipped']:,} of {report['decisions']:,}"
    )


def _notes() -> list[str]:
    cores = len(os.sched_getaffinity(0))
    return [
        f"p50/p99: one gRPC caller, over the wire; requests/s: {CONCURRENCY} callers. Requests are"
        " of one row and every text is new, so nothing is answered from a cache.",
        "Ratios above 1 favour Triton: how many times sooner (median) and how many times more than"
        " FastAPI + eager PyTorch with its best thread count, same run, rounds interleaved, median"
        f" of {ROUNDS}.",
        f"Hardware: {processor()}, {cores} cores, shared by server, baseline and callers.",
    ]


def as_text(table: ClosingTable) -> str:
    """For a terminal."""
    rows = [HEADER, *table.rows]
    widths = [max(_width(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = [_padded(row, widths) for row in rows]
    lines.insert(1, "─" * _width(lines[0]))
    for answer in table.answers:
        first, *rest = answer.answer.splitlines()
        lines += [
            "",
            answer.model,
            f"  Q  {answer.question}",
            f"  A  {first}",
            *(f"     {line}" for line in rest),
        ]
    return "\n".join([*lines, "", *table.notes])


def as_markdown(table: ClosingTable) -> str:
    """For a page; the same content."""
    lines = [
        _markdown_row(HEADER),
        _markdown_row(["---"] * len(HEADER)),
        *(_markdown_row(row) for row in table.rows),
    ]
    for answer in table.answers:
        lines += ["", f"**{answer.model}**", "", "```", answer.question, "", answer.answer, "```"]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
    ).rstrip()


def _width(text: str) -> int:
    """Columns on a terminal, where Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
