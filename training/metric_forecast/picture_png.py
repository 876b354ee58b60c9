"""The picture as a PNG."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.metric_forecast.picture import DASHES, Picture, lone_points

INK = {"history": "#1f2937", "forecast": "#2563eb", "line": "#d97706", "threshold": "#dc2626"}
# Chosen where they are installed and a name needs them: matplotlib's own font has no Chinese.
_WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "SimHei", "PingFang SC")


def write_png(picture: Picture, path: Path) -> None:
    """1320 × 576 pixels. Raises OSError."""
    figure = Figure(figsize=(11.0, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    labels = picture.labels
    past = np.arange(1 - len(picture.history), 1)
    axis.axvspan(0, picture.horizon, color="#94a3b8", alpha=0.10, linewidth=0)
    axis.axvline(0, color="#94a3b8", linewidth=0.8)
    start, ahead = picture.fan()
    low, high = (np.concatenate([start, part]) for part in (picture.low, picture.high))
    axis.fill_between(
        ahead, low, high, color=INK["forecast"], alpha=0.20, linewidth=0, label=labels["band"]
    )
    axis.plot(past, picture.history, color=INK["history"], linewidth=1.1, label=labels["history"])
    alone = lone_points(picture.history)
    axis.plot(past[alone], picture.history[alone], "o", color=INK["history"], markersize=2.5)
    axis.plot(
        ahead,
        np.concatenate([start, picture.median]),
        color=INK["forecast"],
        linewidth=1.9,
        marker="o" if picture.horizon == 1 else None,
        markevery=[-1],
        label=labels["forecast"],
    )
    line_x = picture.line_start + np.arange(len(picture.line))
    axis.plot(
        line_x,
        picture.line,
        color=INK["line"],
        linewidth=1.4,
        dashes=DASHES["line"],
        label=labels["line"],
    )
    axis.axhline(
        picture.threshold,
        color=INK["threshold"],
        linewidth=1.4,
        dashes=DASHES["threshold"],
        label=labels["threshold"],
    )
    axis.set_xlim(past[0] - 0.5, picture.horizon + 0.5)
    axis.set_ylim(*picture.limits())
    for ticks, setter in (
        (picture.x_ticks(), axis.set_xticks),
        (picture.y_ticks(), axis.set_yticks),
    ):
        setter([at for at, _ in ticks], [label for _, label in ticks])
    axis.set_xlabel(picture.x_label, fontsize=9, color="#475569")
    axis.grid(True, color="#e2e8f0", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9, colors="#475569", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#94a3b8")
    fonts = _fonts_for(picture.name)
    # A "$" in a name is no formula.
    figure.suptitle(
        picture.title, x=0.01, ha="left", fontsize=12, fontfamily=fonts, parse_math=False
    )
    axis.set_title(picture.verdict, loc="left", fontsize=9.5, color="#475569", parse_math=False)
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=9, handlelength=2.2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, format="png", metadata={"Software": None})


def _fonts_for(name: str) -> list[str]:
    """matplotlib's own font, and for a name beyond Latin one that is installed and has it."""
    if name.isascii():
        return ["DejaVu Sans"]
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(font for font in _WIDE_FONTS if font in there)]
