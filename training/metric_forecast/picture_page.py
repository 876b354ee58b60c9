"""The picture as one HTML page: inline SVG, its numbers, and a script for the pointer."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from training.metric_forecast.picture import DASHES, Picture, lone_points

_TEMPLATE = Path(__file__).with_name("picture_page.html")
# Pixels of the drawing; the page scales it to its own width.
WIDTH, HEIGHT = 1100, 430
LEFT, RIGHT, TOP, BOTTOM = 74, 14, 12, 44


class _Scale:
    """Steps from now and the metric's unit → pixels."""

    def __init__(self, picture: Picture) -> None:
        self.first, self.last = 1 - len(picture.history) - 0.5, picture.horizon + 0.5
        self.bottom, self.top = picture.limits()
        self.step_width = (WIDTH - LEFT - RIGHT) / (self.last - self.first)

    def x(self, step: float) -> float:
        return round(LEFT + (step - self.first) * self.step_width, 2)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        # Far beyond the picture any number is as good: it is cut off there.
        return round(HEIGHT - BOTTOM - min(max(share, -5.0), 6.0) * (HEIGHT - TOP - BOTTOM), 2)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """One stroke per run of numbers: a gap is a gap."""
        words, pen = [], "M"
        for step, value in points:
            if not math.isfinite(value):
                pen = "M"
                continue
            words.append(f"{pen}{self.x(step):g} {self.y(value):g}")
            pen = "L"
        return "".join(words)


def html_page(picture: Picture) -> str:
    """Self-contained: it loads nothing, so that it can be mailed or archived."""
    scale = _Scale(picture)
    data = {
        "first": 1 - len(picture.history),
        "horizon": picture.horizon,
        "step": picture.step_seconds,
        "end": picture.end_seconds,
        "history": _numbers(picture.history),
        "median": _numbers(picture.median),
        "low": _numbers(picture.low),
        "high": _numbers(picture.high),
        "line": _numbers(picture.line),
        "lineStart": picture.line_start,
        "bandName": picture.labels["band"],
        "x": [scale.x(0), scale.step_width],
        "y": [scale.y(scale.bottom), scale.y(scale.top), scale.bottom, scale.top],
    }
    page = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(picture.title),
        verdict=html.escape(picture.verdict),
        legend=_legend(picture),
        svg=_svg(picture, scale),
        width=WIDTH,
        height=HEIGHT,
        # "<" would end the script element early.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values.tolist()]


def _legend(picture: Picture) -> str:
    return "".join(
        f'<li class="{key}"><i></i>{html.escape(label)}</li>'
        for key, label in picture.labels.items()
    )


def _svg(picture: Picture, scale: _Scale) -> str:
    past = np.arange(1 - len(picture.history), 1).tolist()
    start, ahead = picture.fan()
    low, high = (np.concatenate([start, part]).tolist() for part in (picture.low, picture.high))
    median = np.concatenate([start, picture.median]).tolist()
    steps = ahead.tolist()
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    edge = [*zip(steps, high, strict=True), *zip(steps[::-1], low[::-1], strict=True)]
    outline = scale.path(edge)
    line_steps = [picture.line_start + i for i in range(len(picture.line))]
    threshold = scale.y(picture.threshold)
    parts: list[Any] = [
        f'<rect class="ahead" x="{scale.x(0):g}" y="{TOP}" width="{right - scale.x(0):g}"'
        f' height="{bottom - TOP}"/>'
    ]
    for at, label in picture.y_ticks():
        y = scale.y(at)
        parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" class="y">{html.escape(label)}</text>')
    for at, label in picture.x_ticks():
        x = scale.x(at)
        parts.append(f'<path class="grid" d="M{x:g} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:g}" y="{bottom + 17}" class="x">{html.escape(label)}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2:g}" y="{HEIGHT - 6}" class="x">'
        f"{html.escape(picture.x_label)}</text>"
    )
    parts.append(f'<path class="now" d="M{scale.x(0):g} {TOP}V{bottom}"/><g clip-path="url(#in)">')
    parts.append(f'<path class="band" d="{outline}Z"/>' if outline else "")
    known = scale.path(zip(past, picture.history.tolist(), strict=True))
    parts.append(f'<path class="history" d="{known}"/>')
    for i in lone_points(picture.history).tolist():
        x, y = scale.x(past[i]), scale.y(float(picture.history[i]))
        parts.append(f'<circle class="history" cx="{x:g}" cy="{y:g}" r="1.8"/>')
    if picture.horizon == 1 and math.isfinite(median[-1]):
        x, y = scale.x(1), scale.y(median[-1])
        parts.append(f'<circle class="forecast" cx="{x:g}" cy="{y:g}" r="3.5"/>')
    points = {
        "forecast": scale.path(zip(steps, median, strict=True)),
        "line": scale.path(zip(line_steps, picture.line.tolist(), strict=True)),
        "threshold": f"M{LEFT} {threshold:g}H{right}",
    }
    for key, path in points.items():
        dashes = " ".join(f"{length:g}" for length in DASHES.get(key, ()))
        extra = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<path class="{key}" d="{path}"{extra}/>')
    parts.append(
        "</g>"
        f'<clipPath id="in"><rect x="{LEFT}" y="{TOP}" width="{right - LEFT}"'
        f' height="{bottom - TOP}"/></clipPath>'
    )
    return "\n".join(parts)
