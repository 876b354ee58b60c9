"""The verdict as one self-contained HTML page: plots, flips, and the worst rows with their text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from export.verdict import HISTOGRAM_EDGES, RungResult

if TYPE_CHECKING:
    from export.report import ParityReport

_TEMPLATES = Path(__file__).parent
_TEMPLATE = "parity_report.html.j2"


def html_page(reports: Sequence[ParityReport]) -> str:
    """One page for the models of one run. No script, no request: it can be mailed or archived."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["small"] = lambda value: f"{value:.1e}"
    return environment.get_template(_TEMPLATE).render(
        reports=reports,
        passed=all(report.passed for report in reports),
        plots={report.triton_name: Markup(difference_plot(report)) for report in reports},
    )


def difference_plot(report: ParityReport) -> str:
    """SVG: per output, a histogram of |Δ| to eager for each rung, and what is allowed."""
    from matplotlib.figure import Figure

    names = list(
        dict.fromkeys(
            tensor.name for rung in report.rungs for tensor in rung.tensors if tensor.histogram
        )
    )
    if not names:
        return ""
    figure = Figure(figsize=(8.0, 2.2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        for rung in report.rungs:
            _draw(axis, rung, name)
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=1)
        axis.set_xlabel(f"|Δ| of {name} to eager")
        axis.set_ylabel("values")
        axis.legend(fontsize="x-small", loc="upper right")
    text = io.StringIO()
    # No date and a fixed salt: the same verdict draws the same page.
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _draw(axis: object, rung: RungResult, name: str) -> None:
    tensor = next((tensor for tensor in rung.tensors if tensor.name == name), None)
    if tensor is None or not tensor.histogram:
        return
    edges = [HISTOGRAM_EDGES[0] / 10**0.5, *HISTOGRAM_EDGES, HISTOGRAM_EDGES[-1] * 10**0.5]
    axis.stairs(tensor.histogram, edges, label=rung.rung)  # type: ignore[attr-defined]
    if tensor.allowed_maximum > 0 and rung.rung != "front":
        axis.axvline(tensor.allowed_maximum, color="red", linestyle=":")  # type: ignore[attr-defined]
