"""A run as one self-contained HTML page: its script lies in it, and it asks no network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.plotly_script import plotly_script
from loadtest.load.figures import RunFigures
from loadtest.load.slo import Slo, Verdict
from loadtest.load.table import HEADER, RAMP_HEADER, load_rows, notes, ramp_row, title, total

_TEMPLATE = "page.html.j2"
# Colours that the eye tells apart on white and on black, also without red and green.
COLOURS = ("#0b72c9", "#d1600a", "#12845b", "#b0409a", "#8a6d00", "#5a66d6", "#c2362f")


def load_page(
    runs: Sequence[RunFigures], verdicts: Sequence[Verdict], slo: Slo, checked: str = ""
) -> str:
    """One page of one run; of a ramp, of its runs model by model.

    checked: what the cross-check with another client told

    Raises ServerSetupError: plotly is not installed.
    """
    ramp = runs[0].plan.shape == "ramp"
    rows = [ramp_row(run, slo) for run in runs] if ramp else load_rows(runs[0])
    script = plotly_script().read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(_TEMPLATE).render(
        title=title(runs[0]),
        header=RAMP_HEADER if ramp else HEADER,
        rows=rows,
        verdicts=verdicts,
        missed=sum(not verdict.kept for verdict in verdicts),
        checked=checked.strip(),
        messages=[
            (flow, told[0]) for run in runs for flow, told in run.first_messages.items() if told
        ],
        notes=list(dict.fromkeys(note for run in runs for note in notes(run))),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        charts=_script_safe(charts(runs)),
        plotly=Markup(script.replace("</script", "<\\/script")),
    )


def _script_safe(value: Any) -> Markup:
    """JSON inside a script element: nothing in it may end the element."""
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return Markup(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def charts(runs: Sequence[RunFigures]) -> list[dict[str, Any]]:
    """What each plot shows: {id, title, kind, x, y, log, series: [{name, x, y, colour, dash}]}."""
    stages = [stage for run in runs for stage in run.stages]
    shown = [
        _over_rate(runs),
        _split(runs),
        _batches(runs),
    ]
    if len(stages) > 1 and runs[0].plan.shape in ("soak", "spike"):
        shown.insert(0, _over_time(runs[0]))
    return [chart for chart in shown if chart["series"]]


def _over_rate(runs: Sequence[RunFigures]) -> dict[str, Any]:
    series = []
    for index, (run, model) in enumerate(_models(runs)):
        points = [
            (figures.offered_per_second, figures.milliseconds)
            for stage in run.stages
            for figures in [_of(stage.direct, model) or (total(stage) if stage.flows else None)]
            if figures is not None and figures.model == model and figures.answered
        ]
        points.sort()
        for name, which, dash in (("p50", 0, "dot"), ("p99", 2, "solid")):
            series.append(
                {
                    "name": f"{model} {name}",
                    "x": [round(rate, 3) for rate, _ in points],
                    "y": [_number(values[which]) for _, values in points],
                    "colour": COLOURS[index % len(COLOURS)],
                    "dash": dash,
                }
            )
    return {
        "id": "rate",
        "title": "Latency over rate 延迟与请求速率",
        "note": "gRPC and HTTP together; one point a stage of the run.",
        "kind": "lines",
        "x": "requests a second",
        "y": "milliseconds",
        "log": "xy",
        "series": [one for one in series if one["x"]],
    }


def _over_time(run: RunFigures) -> dict[str, Any]:
    ends = []
    end = 0.0
    for stage in run.stages:
        end += stage.stage.seconds
        ends.append(round(end, 1))
    series = [
        {
            "name": f"{model} p99",
            "x": ends,
            "y": [
                None if (own := _of(stage.direct, model)) is None else _number(own.milliseconds[2])
                for stage in run.stages
            ],
            "colour": COLOURS[index % len(COLOURS)],
            "dash": "solid",
        }
        for index, (_, model) in enumerate(_models([run]))
    ]
    return {
        "id": "time",
        "title": "Latency over time 延迟随时间",
        "note": "p99 of each stage, at its end.",
        "kind": "lines",
        "x": "seconds",
        "y": "milliseconds",
        "log": "y",
        "series": series,
    }


def _split(runs: Sequence[RunFigures]) -> dict[str, Any]:
    parts = (
        ("waiting 排队", "queue_seconds", COLOURS[1]),
        ("input 输入", "input_seconds", COLOURS[4]),
        ("computing 计算", "infer_seconds", COLOURS[0]),
        ("output 输出", "output_seconds", COLOURS[2]),
    )
    rows = [
        (name, counts) for run in runs for name, counts in run.counts.items() if counts.requests
    ]
    return {
        "id": "split",
        "title": "Where the time in the server goes 服务器内耗时",
        "note": "Milliseconds a request, as Triton counts them. A classifier is asked by its front:"
        " its time is a part of the front's computing.",
        "kind": "bars",
        "x": "",
        "y": "milliseconds a request",
        "log": "",
        "series": [
            {
                "name": name,
                "x": [model for model, _ in rows],
                "y": [round(1000 * getattr(c, field) / c.requests, 4) for _, c in rows],
                "colour": colour,
                "dash": "solid",
            }
            for name, field, colour in parts
            if rows
        ],
    }


def _batches(runs: Sequence[RunFigures]) -> dict[str, Any]:
    series: list[dict[str, Any]] = []
    for run in runs:
        for name, counts in run.counts.items():
            batches = sorted(counts.batches.items())
            executions = sum(count for _, count in batches)
            if not executions:
                continue
            series.append(
                {
                    "name": name,
                    "x": [size for size, _ in batches],
                    "y": [round(100 * count / executions, 3) for _, count in batches],
                    "colour": COLOURS[len(series) % len(COLOURS)],
                    "dash": "solid",
                }
            )
    return {
        "id": "batches",
        "title": "How many rows are computed together 实际批大小",
        "note": "Share of a model's executions by their batch, as Triton counts them.",
        "kind": "grouped",
        "x": "rows of a batch",
        "y": "% of executions",
        "log": "",
        "series": series,
    }


def _models(runs: Sequence[RunFigures]) -> list[tuple[RunFigures, str]]:
    return [
        (run, model) for run in runs for model in dict.fromkeys(f.model for f in run.plan.flows)
    ]


def _of(figures: Sequence[Any], model: str) -> Any:
    return next((one for one in figures if one.model == model), None)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
