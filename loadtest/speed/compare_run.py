"""The whole of ``compare``: single figures first, then question by question; markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from contract.errors import ArtifactMissingError, InputError, PresageError
from export.target import TARGETS
from loadtest.served import ServedModel, served_models
from loadtest.speed.compare import Comparison, as_json, compare_question
from loadtest.speed.compare_table import compare_report
from loadtest.speed.facts import (
    SERIES,
    Fact,
    batch_fact,
    ceiling_fact,
    growth_facts,
    matmul_facts,
    not_measured,
    series_fact,
    start_facts,
)
from loadtest.speed.presage_server import presage_server
from loadtest.speed.questions import BERT_TARGETS, CompareSettings, questions

FACT_PARTS = ("start", "batch", "series", "growth", "matmul")
QUESTION_PARTS = ("lines", "rca", "bert", "forecasts")
PARTS = (*FACT_PARTS, *QUESTION_PARTS)
_CEILING_SECONDS = 2.0
_GROWTH_ROUNDS = 3


def run_compare(
    settings: CompareSettings, markdown: Path, *, series: int = SERIES, progress: bool = True
) -> str:
    """Measure; the report as markdown. It is written after each part, with a .json beside it, so
    that what was measured is not lost with what came after.

    Raises:
        InputError: ``only`` names a part that is not there, or there is no round.
        ArtifactMissingError: nothing is published.
        ServerAnswerError: a request failed, or a side does not answer as eager PyTorch does.
    """
    from tqdm import tqdm

    unknown = sorted(set(settings.only) - set(PARTS))
    if unknown:
        raise InputError("unknown part", expected=f"some of {', '.join(PARTS)}", got=unknown[0])
    wanted = frozenset(settings.only or PARTS)
    with tqdm(desc="compare", unit="step", disable=not progress) as bar:

        def tell(what: str) -> None:
            bar.set_description(f"compare: {what}")
            bar.update()

        facts: list[Fact] = []
        comparisons: list[Comparison] = []
        for fact in _facts(settings, wanted, series, tell):
            facts.append(fact)
            _write(markdown, comparisons, facts, settings)
        for question, served in questions(settings):
            part = question.name if question.name in QUESTION_PARTS else "forecasts"
            if part not in wanted:
                continue
            comparisons.append(
                compare_question(
                    question,
                    served,
                    settings,
                    tell=lambda what, name=question.name: tell(f"{name}, {what}"),  # type: ignore[misc]
                    step_done=bar.update,
                )
            )
            _write(markdown, comparisons, facts, settings)
    return _write(markdown, comparisons, facts, settings)


def _write(
    markdown: Path,
    comparisons: Sequence[Comparison],
    facts: Sequence[Fact],
    settings: CompareSettings,
) -> str:
    report = compare_report(comparisons, facts, settings)
    document = {
        "facts": [vars(fact) for fact in facts],
        "comparisons": json.loads(as_json(comparisons)),
    }
    markdown.parent.mkdir(parents=True, exist_ok=True)
    markdown.write_text(report + "\n", encoding="utf-8")
    markdown.with_suffix(".json").write_text(
        json.dumps(document, indent=1) + "\n", encoding="utf-8"
    )
    return report


def _facts(
    settings: CompareSettings, wanted: frozenset[str], series: int, tell: Callable[[str], None]
) -> Iterator[Fact]:
    of_repository = wanted & {"start", "batch", "series", "growth"}
    if of_repository:
        served = {
            model.name: model for model in served_models(settings.repository, settings.artifacts)
        }
        tell("starting the server")
        with presage_server(settings.repository, twins=False) as server:
            if "start" in wanted:
                tell("first requests")
                yield from start_facts(server, served)
                tell("the load generator alone")
                yield ceiling_fact(server, _CEILING_SECONDS)
            for name, model in served.items():
                if "batch" in wanted and not model.reads_text:
                    tell(f"{name}, large batches")
                    yield batch_fact(
                        model,
                        server,
                        model.folder / "model.onnx",
                        rounds=settings.rounds,
                        seconds=settings.seconds,
                    )
            if "series" in wanted and "metric_forecast_fleet" in served:
                tell(f"{series:,} series")
                length = served["metric_forecast_fleet"].inputs[0].dims[0]
                yield series_fact(server, "fleet", length, series)
            if "growth" in wanted:
                tell("growth of cost")
                yield from growth_facts(server, served, rounds=_GROWTH_ROUNDS)
    if "matmul" in wanted:
        yield from _matmul(settings, tell)


def _matmul(settings: CompareSettings, tell: Callable[[str], None]) -> Iterator[Fact]:
    found = False
    for target in BERT_TARGETS:
        repository = settings.bert.repository(target)
        try:
            models = served_models(repository, settings.bert.artifacts)
        except ArtifactMissingError:
            continue
        found = True
        model: ServedModel = models[0]
        tell(f"matmul share, {target}")
        try:
            with presage_server(repository, twins=False) as server:
                yield from matmul_facts(
                    model,
                    server,
                    rounds=settings.rounds,
                    seconds=settings.seconds,
                    precision=TARGETS[target].precision,
                )
        except PresageError as error:
            yield not_measured(f"matmul share, BERT-base, {target}", error)
    if not found:
        yield not_measured(
            "matmul share, BERT-base",
            ArtifactMissingError(
                "no BERT-base-size classifier", next_command="make it: python -m loadtest bert-base"
            ),
        )
