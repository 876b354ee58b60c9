"""Forecast error on held-out parts of every series, beside simple and classical methods.

Origins lie in each series' last 20%; the context is everything up to the origin. Error of a series
= MAE(method) / MAE(last value) over the same origins, one step and 12 hours ahead; a family's
figure is the geometric mean over its series, each ratio floored. Series whose last value is never
wrong are left out.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from contract.errors import DataFileError
from training.data.row_report import RowReport
from training.data.source import find_data
from training.metric_forecast.benchmark.baselines import RidgeNLinear, auto_ets, load_auto_ets
from training.metric_forecast.benchmark.judged import Judged, find_judged, held_out_names
from training.metric_forecast.benchmark.measure import (
    Measured,
    Method,
    figure,
    group_of,
    interval,
    measure,
    network_method,
    of_group,
    ordered_groups,
    share_better,
)
from training.metric_forecast.benchmark.methods import (
    lead_name,
    line_name,
    points,
    simple_methods,
)
from training.metric_forecast.benchmark.table import describe_machine, markdown_table
from training.metric_forecast.data import Series, hold_out, read_series

if TYPE_CHECKING:
    from training.metric_forecast.network import LSTMForecast

RIDGE = "ridge NLinear"
ETS = "AutoETS"
BEATEN = line_name("6h")
BEATEN_SHARE = 0.95
_ETS_ORIGINS = 10


def run_series(arguments: Namespace) -> str:
    """The table. Raises ArtifactError, DataFileError, InputError."""
    started = time.monotonic()
    data, held = find_data(arguments.data), held_out_names(arguments)
    series, _ = read_series(data, RowReport(), progress=not arguments.quiet)
    learnt, apart = hold_out(series, held)
    judged_series = apart if held else series
    model = find_judged(arguments, data)
    network = next(iter(model.networks.values()))
    horizon = network.settings.horizon
    prepared = time.monotonic()

    ridge = RidgeNLinear()
    for ahead in sorted({1} | {one.lead_steps(horizon) for one in judged_series}):
        ridge.fit([one for one in learnt if ahead in (1, one.lead_steps(horizon))], ahead)
    networks = {name: network_method(network) for name, network in model.networks.items()}
    methods = {**simple_methods(), RIDGE: points(ridge.predict), **networks}
    show = not arguments.quiet
    measured = measure(judged_series, methods, horizon, arguments.origins, progress=show)
    groups = ordered_groups(measured)
    if not groups:
        raise DataFileError(
            "no series to judge",
            where=data.describe(),
            expected="one whose last 20% vary and reach the horizon",
            got=f"{len(judged_series)} series",
        )
    rows = [(name, [name], measured) for name in methods if name not in networks]
    rows.append((model.label, list(networks), measured))
    notes: list[str] = []
    auto_ets_class = load_auto_ets()
    if arguments.ets_series < 1:
        rows.append((f"{ETS}: skipped", [], []))
        notes.append("AutoETS: skipped (--ets-series 0)")
    elif auto_ets_class is None:
        rows.append((f"{ETS}: skipped", [], []))
        notes.append(
            "AutoETS: skipped, statsforecast is not installed"
            " (pip install -c requirements/constraints.txt -r requirements/benchmark.txt)"
        )
    else:
        chosen = spread_over_groups(judged_series, arguments.ets_series)
        both = {ETS: _ets_method(auto_ets_class), **networks}
        limit = min(arguments.origins or _ETS_ORIGINS, _ETS_ORIGINS)
        few = measure(chosen, both, horizon, limit, progress=show)
        rows += [(f"{ETS} *", [ETS], few), (f"{model.label} *", list(networks), few)]
        notes.append(f"\\* the same {len(few)} series at up to {limit} origins each")
    notes += _notes(measured, list(networks), model, held, arguments)
    notes.append(
        f"{describe_machine(torch.get_num_threads())}: {prepared - started:.0f} s to read"
        f"{' and train' if arguments.train_seeds else ''},"
        f" {time.monotonic() - prepared:.0f} s to measure"
    )
    heads = [lead_name(judged_series, horizon)] if horizon > 1 else []
    return "\n\n".join(
        [
            _main_table(rows, groups, ["1 step", *heads]),
            _model_table(measured, list(networks), groups, ["1 step", *heads], network, arguments),
            "\n".join(f"- {note}" for note in notes),
        ]
    )


# Methods -------------------------------------------------------------------------------------


def _ets_method(auto_ets_class: Any) -> Method:
    def answer(series: Series, origins: Sequence[int], aheads: Sequence[int]) -> np.ndarray:
        return auto_ets(auto_ets_class, series.values, origins, aheads, series.season_length)[
            ..., None
        ]

    return answer


def spread_over_groups(series: Sequence[Series], number: int) -> list[Series]:
    """At most ``number`` series, as many of each group as there are, evenly spread within it."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(group_of(one), []).append(one)
    share = dict.fromkeys(groups, 0)
    left = min(number, len(series))
    while left:
        for group in groups:
            if left and share[group] < len(groups[group]):
                share[group] += 1
                left -= 1
    return [
        groups[group][i]
        for group, count in share.items()
        for i in np.unique(np.linspace(0, len(groups[group]) - 1, count).round().astype(int))
    ]


# The text ------------------------------------------------------------------------------------


def _main_table(
    rows: Sequence[tuple[str, Sequence[str], Sequence[Measured]]],
    groups: Sequence[str],
    heads: Sequence[str],
) -> str:
    """A row per method, per group a column one step ahead and one at the lead."""
    headings = ["error / last value", *(f"{group}, {head}" for group in groups for head in heads)]
    return markdown_table(
        headings,
        [
            [label]
            + [
                _number(figure(of_group(measured, group, at), names, at))
                for group in groups
                for at in range(len(heads))
            ]
            for label, names, measured in rows
        ],
    )


def _model_table(
    measured: Sequence[Measured],
    names: Sequence[str],
    groups: Sequence[str],
    heads: Sequence[str],
    network: LSTMForecast,
    arguments: Namespace,
) -> str:
    """This model per group: figures with intervals, how often it beats the line, its band."""
    quantiles = network.settings.quantiles
    ahead = len(heads) - 1
    headings = ["this model", "series", "origins"]
    headings += [f"{head} [95%]" for head in heads]
    headings += [f"better than {BEATEN}, {heads[ahead]}"]
    headings += [f"in the {quantiles[-1] - quantiles[0]:.0%} band, {head}" for head in heads]
    rows = []
    for group in groups:
        own = of_group(measured, group, ahead)
        row = [group, str(len(own)), str(sum(one.origins for one in own))]
        for at in range(len(heads)):
            usable = of_group(measured, group, at)
            low, high = interval(usable, names, at, arguments.bootstrap, arguments.seed)
            row.append(f"{_number(figure(usable, names, at))} [{_number(low)}, {_number(high)}]")
        row.append(_percent(share_better(own, names, BEATEN, ahead)[0]))
        for at in range(len(heads)):
            inside = [
                np.mean([one.inside[name][at] for name in names])
                for one in of_group(measured, group, at)
            ]
            row.append(_percent(float(np.mean(inside)) if inside else math.nan))
        rows.append(row)
    return markdown_table(headings, rows)


def _notes(
    measured: Sequence[Measured],
    names: Sequence[str],
    model: Judged,
    held: Sequence[str],
    arguments: Namespace,
) -> list[str]:
    share, number = share_better(measured, names, BEATEN, 1)
    verdict = "reached" if share >= BEATEN_SHARE else "NOT reached"
    notes = [
        f"this model: {model.description}",
        f"at the longer lead better than {BEATEN} in {_percent(share)} of {number} series"
        f" (target {BEATEN_SHARE:.0%}: {verdict})",
    ]
    if len(names) > 1:
        notes.append("figures of this model: mean of the seeds; interval over series and seeds")
    if held:
        notes.append(f"judged: {', '.join(held)} only")
    every = f"at most {arguments.origins} a series" if arguments.origins else "every 12 steps"
    notes.append(
        f"origins in the last 20% of each series, {every}; series whose last value is never wrong"
        f" are left out; intervals from {arguments.bootstrap} resamplings, seed {arguments.seed}"
    )
    return notes


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else ("–" if math.isnan(value) else "inf")


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"
