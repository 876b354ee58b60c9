"""The tables of ``benchmark alerts``: per group of series what each rule got right, and when."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contract.errors import DataFileError, InputError
from training.data.row_report import RowReport
from training.data.source import find_data
from training.metric_forecast.benchmark.judged import find_judged, held_out_names
from training.metric_forecast.benchmark.measure import network_method, ordered_groups
from training.metric_forecast.benchmark.methods import lead_name, simple_methods
from training.metric_forecast.benchmark.replay import (
    DUAL,
    HIGH_YESTERDAY,
    MODEL,
    RULES,
    YESTERDAY,
    Replayed,
    Tally,
    pooled,
    replay,
)
from training.metric_forecast.benchmark.table import describe_machine, markdown_table
from training.metric_forecast.data import hold_out, read_series

PRECISION_TARGET, KEPT_TARGET = 0.80, 0.90
F1_TARGETS = {"app servers": 0.60, "CloudWatch": 0.65, "machines": 0.50}
_CONFIRMED = (DUAL, YESTERDAY, HIGH_YESTERDAY)


@dataclass(frozen=True)
class Figures:
    """Of one rule in one group, each the mean over the seeds; NaN where there is nothing."""

    precision: float
    recall: float
    f1: float
    lead_hours: float
    false_alarms: float


def run_alerts(arguments: Namespace) -> str:
    """The tables. Raises ArtifactError, DataFileError, InputError."""
    if arguments.origins < 0:
        raise InputError(
            "impossible number of origins",
            where="--origins",
            expected="0 (every 15 minutes) or more",
            got=str(arguments.origins),
        )
    started = time.monotonic()
    data, held = find_data(arguments.data), held_out_names(arguments)
    series, _ = read_series(data, RowReport(), progress=not arguments.quiet)
    judged = hold_out(series, held)[1] if held else series
    model = find_judged(arguments, data)
    horizon = next(iter(model.networks.values())).settings.horizon
    prepared = time.monotonic()
    networks = {name: network_method(network) for name, network in model.networks.items()}
    replayed = replay(
        judged,
        simple_methods(),
        networks,
        horizon,
        arguments.origins,
        progress=not arguments.quiet,
    )
    if not replayed:
        raise DataFileError(
            "no series to replay alerts on",
            where=data.describe(),
            expected="one whose last 20% reach the horizon",
            got=f"{len(judged)} series",
        )
    notes = [
        f"model: {model.description}",
        "judged systems were "
        + ("never learnt from" if model.unseen else "learnt from: the targets ask for unseen ones"),
        f"event: the value {lead_name(judged, horizon)} later is above the 95th percentile of the"
        " series' first 80%; precision, recall and F1 over all origins of a group",
        _origins_note(arguments.origins),
        "episode: alerts of a rule with at most an hour between neighbours; lead: median hours from"
        " an episode's first alert to the beginning of the excursion above the threshold that its"
        " first right alert foretold (none if it was under way); false alarms: episodes without a"
        " right alert, per series and week",
        f"{YESTERDAY}: the median is above, and so was the value a day before the moment asked"
        " about (metric offset 12h); the other: the same with the highest quantile",
    ]
    if len(networks) > 1:
        notes.append(f"figures of the model's rules: mean of {len(networks)} seeds")
    notes.append(
        f"{describe_machine(torch.get_num_threads())}: {prepared - started:.0f} s to read"
        f"{' and train' if arguments.train_seeds else ''},"
        f" {time.monotonic() - prepared:.0f} s to replay"
    )
    groups = ordered_groups(replayed)  # type: ignore[arg-type]  # it asks for group and usable
    return "\n\n".join(
        [
            *(_group_table(replayed, group) for group in groups),
            _target_table(replayed, [group for group in groups if group in F1_TARGETS])
            or "no group that has a target",
            "\n".join(f"- {note}" for note in notes),
        ]
    )


def figures(replayed: Sequence[Replayed], rule: str) -> Figures:
    """Pooled over the series for each seed, then the mean over seeds."""
    seeds = [pooled(one.tallies[seed][rule] for one in replayed) for seed in replayed[0].tallies]
    weeks = sum(one.weeks for one in replayed)

    def mean(of: Callable[[Tally], float]) -> float:
        there = [value for value in map(of, seeds) if math.isfinite(value)]
        return float(np.mean(there)) if there else math.nan

    return Figures(
        precision=mean(lambda one: one.precision),
        recall=mean(lambda one: one.recall),
        f1=mean(lambda one: one.f1),
        lead_hours=mean(lambda one: one.lead),
        false_alarms=mean(lambda one: one.false_episodes / weeks),
    )


def _group_table(replayed: Sequence[Replayed], group: str) -> str:
    own = [one for one in replayed if one.group == group]
    events, origins = sum(one.events for one in own), sum(one.origins for one in own)
    heading = f"{group}: {len(own)} series, {events:,} events at {origins:,} origins"
    headings = [heading, "precision", "recall", "F1", "lead, h", "false alarms/week"]
    rows = []
    for rule in RULES:
        of = figures(own, rule)
        rows.append(
            [
                rule,
                _number(of.precision, 3),
                _number(of.recall, 3),
                _number(of.f1, 3),
                _number(of.lead_hours, 1),
                _number(of.false_alarms, 2),
            ]
        )
    return markdown_table(headings, rows)


def _target_table(replayed: Sequence[Replayed], groups: Sequence[str]) -> str:
    """Every rule with a second witness against the targets; empty without groups."""
    if not groups:
        return ""
    headings = [
        "targets",
        "group",
        f"precision ≥ {PRECISION_TARGET:.2f}",
        f"of the model's recall ≥ {KEPT_TARGET:.0%}",
        "F1",
        "F1 target",
        "reached",
    ]
    rows = []
    for rule in _CONFIRMED:
        for group in groups:
            own = [one for one in replayed if one.group == group]
            of, alone, target = figures(own, rule), figures(own, MODEL), F1_TARGETS[group]
            kept = of.recall / alone.recall if alone.recall > 0 else math.nan
            words = [
                word
                for word, good in (
                    ("precision", of.precision >= PRECISION_TARGET),
                    ("recall", kept >= KEPT_TARGET),
                    ("F1", of.f1 >= target),
                )
                if good
            ]
            rows.append(
                [
                    rule,
                    group,
                    _number(of.precision, 3),
                    f"{kept:.0%}" if math.isfinite(kept) else "–",
                    _number(of.f1, 3),
                    f"{target:.2f}",
                    "all" if len(words) == 3 else (f"only {', '.join(words)}" if words else "none"),
                ]
            )
    return markdown_table(headings, rows)


def _origins_note(limit: int) -> str:
    words = "origins every 15 minutes (or step, where that is longer) of each series' last 20%"
    if not limit:
        return words
    return (
        f"{words}, thinned to {limit} a series: neighbouring origins are then more than 15 minutes"
        " apart, and episodes merge over what lies between"
    )


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
