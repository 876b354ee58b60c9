"""One real question of each model with the answer its client got: what the demo shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clients import LogAnomalyClient, MetricForecastClient, TrainFailureRCAClient
from loadtest.served import ServedModel, text_of

_WIDTH = 150


@dataclass(frozen=True)
class DemoAnswer:
    """question and answer: a few lines each, as a person would read them."""

    model: str
    question: str
    answer: str


def ask_one(model: ServedModel, url: str) -> DemoAnswer:
    """Ask the model its first golden question. Raises PresageError."""
    ask = _ASK.get(model.manifest.model, _ask_nobody)
    return ask(model, url)


def _ask_forecast(model: ServedModel, url: str) -> DemoAnswer:
    asked = model.questions[0]
    values = [math.nan if value is None else float(value) for value in asked["values"]]
    step = asked["step_seconds"]
    with MetricForecastClient(url) as client:
        forecast = client.forecast([values], step_seconds=step, preset=model.manifest.preset)
    low, high = min(forecast.quantiles), max(forecast.quantiles)
    horizon = forecast.median.shape[1]
    ahead = _duration(horizon * forecast.step_seconds)
    last = next(value for value in reversed(values) if not math.isnan(value))
    return DemoAnswer(
        model.name,
        f"{asked.get('name', 'a metric')}: {len(values):,} points every {_duration(step)},"
        f" the last {last:.4g}; where is it in {ahead}?",
        f"{forecast.median[0, -1]:.4g}, between {forecast.quantiles[low][0, -1]:.4g} and"
        f" {forecast.quantiles[high][0, -1]:.4g} with {high - low:.0%} ({forecast.source[0]};"
        f" {horizon} steps)",
    )


def _ask_logs(model: ServedModel, url: str) -> DemoAnswer:
    lines = [text_of(question) for question in model.questions]
    with LogAnomalyClient(url) as client:
        verdicts = client.classify(lines)
    # Of the questions that were asked, the one where most is at stake.
    worst = int(np.argmax([verdict.score for verdict in verdicts]))
    verdict = verdicts[worst]
    return DemoAnswer(
        model.name,
        lines[worst][:_WIDTH],
        f"{verdict.label}, score {verdict.score:.3f} (threshold {verdict.threshold:.3f})",
    )


def _ask_diagnosis(model: ServedModel, url: str) -> DemoAnswer:
    logs = [text_of(question) for question in model.questions]
    with TrainFailureRCAClient(url) as client:
        diagnoses = client.diagnose(logs)
    first = next((i for i, diagnosis in enumerate(diagnoses) if diagnosis.causes), 0)
    log, diagnosis = logs[first], diagnoses[first]
    lines = log.strip().splitlines()
    question = f"a job's log of {len(lines):,} lines, the last: {lines[-1].strip()[:_WIDTH]}"
    if not diagnosis.causes:
        return DemoAnswer(
            model.name, question, "an unknown cause" if diagnosis.unknown else "no failure in it"
        )
    answer = []
    for cause in diagnosis.causes:
        answer.append(f"{cause.label} {cause.probability:.2f}")
        answer += [
            f"  line {line.line_number}: {line.text.strip()[:_WIDTH]}"
            for line in cause.evidence[:1]
        ]
        answer += [f"  → {words}" for words in [cause.action.get("en")] if words]
    return DemoAnswer(model.name, question, "\n".join(answer))


def _ask_nobody(model: ServedModel, url: str) -> DemoAnswer:
    return DemoAnswer(
        model.name, f"{len(model.questions)} golden questions", "no client of its own"
    )


def _duration(seconds: float) -> str:
    for size, word in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {word}"
    return f"{seconds:g} s"


_ASK: dict[str, Callable[[ServedModel, str], DemoAnswer]] = {
    "metric_forecast": _ask_forecast,
    "log_anomaly": _ask_logs,
    "train_failure_rca": _ask_diagnosis,
}
