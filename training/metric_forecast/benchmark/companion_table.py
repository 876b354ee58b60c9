"""The table of ``benchmark companions``, and its verdict.

Four ways over the same origins: the plain network; the one that reads companions, with them; the
same with all of them withheld; and the same beside companions of another time, which say nothing
that the series does not say itself. Only series that have companions are judged.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contract.errors import DataFileError, InputError
from training.data.row_report import RowReport
from training.data.source import find_data
from training.metric_forecast.benchmark.judged import Judged, find_judged, held_out_names
from training.metric_forecast.benchmark.measure import (
    Measured,
    Method,
    figure,
    measure,
    network_method,
    of_group,
    ordered_groups,
)
from training.metric_forecast.benchmark.table import describe_machine, markdown_table
from training.metric_forecast.companions import Companions
from training.metric_forecast.data import hold_out, read_series
from training.metric_forecast.evaluate import SMALLEST_RATIO

STEPS = (1, 3, 6, 12)
NEAR_TARGET = 0.05
# Far from now, and at another time of day: what was to be said of this series is over.
PLACEBO_STEPS = 1009
_PLAIN, _WITH, _WITHHELD, _PLACEBO = "plain", "companions", "withheld", "another time"


@dataclass(frozen=True)
class Gain:
    """Share by which the geometric mean error falls, and its 95% interval over series."""

    value: float
    low: float
    high: float


def run_companions(arguments: Namespace) -> str:
    """The table. Raises ArtifactError, DataFileError, InputError."""
    started = time.monotonic()
    data, held = find_data(arguments.data), held_out_names(arguments)
    series, _ = read_series(data, RowReport(), progress=not arguments.quiet)
    judged_series = hold_out(series, held)[1] if held else series
    plain, beside = _networks(arguments, data)
    settings = next(iter(beside.networks.values())).settings
    if not settings.companions:
        raise InputError(
            "a run that reads no companions",
            where="--run-folder",
            expected="one of `train metric_forecast --companions K`",
            got=beside.description,
        )
    prepared = time.monotonic()
    companions = Companions(judged_series, settings.companions)
    judged_series = [one for one in judged_series if companions.of(one)]

    methods: dict[str, Method] = {}
    names: dict[str, list[str]] = {_PLAIN: [], _WITH: [], _WITHHELD: [], _PLACEBO: []}
    for label, network in plain.networks.items():
        methods[f"{_PLAIN} {label}"] = network_method(network)
        names[_PLAIN].append(f"{_PLAIN} {label}")
    for label, network in beside.networks.items():
        for way, method in (
            (_WITH, network_method(network, companions)),
            (_WITHHELD, network_method(network)),
            (_PLACEBO, network_method(network, companions, PLACEBO_STEPS)),
        ):
            methods[f"{way} {label}"] = method
            names[way].append(f"{way} {label}")
    steps = (*(step for step in STEPS if step < settings.horizon), settings.horizon)
    show = not arguments.quiet
    measured = measure(
        judged_series, methods, settings.horizon, arguments.origins, aheads=steps, progress=show
    )
    if not measured:
        raise DataFileError(
            "no series to judge",
            where=data.describe(),
            expected="one that has others beside it in its file, and whose last 20% vary",
            got=f"{len(judged_series)} series with companions",
        )
    return "\n\n".join(
        [
            _table(measured, names, steps),
            _gains(measured, names, steps, arguments),
            "\n".join(
                f"- {note}"
                for note in (
                    *_verdict(measured, names, steps, arguments),
                    f"plain: {plain.description}",
                    f"companions: {beside.description}",
                    "withheld: the network with a branch for companions, without any; another"
                    f" time: beside its companions of {PLACEBO_STEPS} steps ago",
                    f"up to {settings.companions} companions a series, chosen from its first 80%;"
                    f" {len(measured)} series that have any",
                    f"{describe_machine(torch.get_num_threads())}: {prepared - started:.0f} s to"
                    f" read and train, {time.monotonic() - prepared:.0f} s to measure",
                )
            ),
        ]
    )


def _networks(arguments: Namespace, data: object) -> tuple[Judged, Judged]:
    """(plain, with companions), named or trained alike."""
    own = vars(arguments)
    plain = own | {"run_folder": arguments.plain_folder}
    flags = f"{arguments.train_flags} --companions {arguments.companions}"
    beside = own | {"train_flags": flags}
    if not arguments.train_seeds:
        beside["preset"] = f"{arguments.preset}_companions"
    return find_judged(Namespace(**plain), data), find_judged(Namespace(**beside), data)  # type: ignore[arg-type]


def _table(measured: Sequence[Measured], names: dict[str, list[str]], steps: Sequence[int]) -> str:
    groups = ordered_groups(measured)
    headings = ["error / last value"]
    headings += [f"{group}, {_word(step)}" for group in groups for step in steps]
    rows = []
    for way, own in names.items():
        row = [f"{way}, {len(own)} seed{'s' if len(own) > 1 else ''}"]
        for group in groups:
            for at in range(len(steps)):
                row.append(_number(figure(of_group(measured, group, at), own, at)))
        rows.append(row)
    return markdown_table(headings, rows)


def _gains(
    measured: Sequence[Measured],
    names: dict[str, list[str]],
    steps: Sequence[int],
    arguments: Namespace,
) -> str:
    """By how much companions lower the error: against the plain network and against none."""
    headings = ["gain by companions [95%]", "series", *(_word(step) for step in steps)]
    rows = []
    for group in ordered_groups(measured):
        for against in (_PLAIN, _PLACEBO):
            row = [f"{group}, against {against}", str(len(of_group(measured, group, 0)))]
            for at in range(len(steps)):
                own = of_group(measured, group, at)
                found = gain(own, names[_WITH], names[against], [at], arguments)
                row.append(f"{found.value:+.1%} [{found.low:+.1%}, {found.high:+.1%}]")
            rows.append(row)
    return markdown_table(headings, rows)


def _verdict(
    measured: Sequence[Measured],
    names: dict[str, list[str]],
    steps: Sequence[int],
    arguments: Namespace,
) -> list[str]:
    near = [at for at, step in enumerate(steps) if step in STEPS]
    early = gain(measured, names[_WITH], names[_PLAIN], near, arguments)
    late = gain(measured, names[_WITH], names[_PLAIN], [len(steps) - 1], arguments)
    earned = early.value >= NEAR_TARGET and late.high >= 0
    words = "earned" if earned else "NOT earned: companions stay off by default"
    return [
        f"gain up to step {steps[near[-1]] if near else 0}: {early.value:+.1%}"
        f" [{early.low:+.1%}, {early.high:+.1%}] (target {NEAR_TARGET:.0%}), at"
        f" {_word(steps[-1])}: {late.value:+.1%} [{late.low:+.1%}, {late.high:+.1%}]: {words}"
    ]


def gain(
    measured: Sequence[Measured],
    names: Sequence[str],
    others: Sequence[str],
    columns: Sequence[int],
    arguments: Namespace,
) -> Gain:
    """1 - geometric mean of the error of ``names`` over that of ``others``, each the mean of its
    logarithms over seeds, over the series and columns that have a ratio.
    """
    per_series = []
    for one in measured:
        usable = [at for at in columns if one.usable(at)]
        if usable:
            logs = [
                np.mean([[_log(one, name, at) for at in usable] for name in group])
                for group in (names, others)
            ]
            per_series.append(float(logs[0] - logs[1]))
    if not per_series:
        return Gain(math.nan, math.nan, math.nan)
    found = np.array(per_series)
    random = np.random.default_rng(arguments.seed)
    drawn = random.integers(len(found), size=(max(1, arguments.bootstrap), len(found)))
    low, high = np.quantile(1 - np.exp(found[drawn].mean(1)), [0.025, 0.975])
    return Gain(float(1 - np.exp(found.mean())), float(low), float(high))


def _log(one: Measured, name: str, at: int) -> float:
    return math.log(max(SMALLEST_RATIO, float(one.errors[name][at] / one.last[at])))


def _word(step: int) -> str:
    return f"step {step}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
