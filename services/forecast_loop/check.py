"""``check``: every query once, and what is suspicious about what it gives."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from contract.errors import InputError, PresageError
from services.forecast_loop.config import LoopConfig, Query
from services.forecast_loop.loop import LARGEST_SKEW_SECONDS, reason_of
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.query_state import fresh_columns
from services.forecast_loop.reading import QueryReader
from services.forecast_loop.series_store import SeriesStore

_COLUMNS = 12


@dataclass
class Finding:
    """One query's line, and the problems that stand under it."""

    metric: str
    summary: str = "nothing"
    problems: list[str] = field(default_factory=list)


def check(config: LoopConfig) -> int:
    """Print what was found; 0, or InputError's exit code when anything is suspicious.

    Raises ServerError when Prometheus cannot be asked at all.
    """
    with Prometheus(config.prometheus) as prometheus:
        skew = prometheus.server_time().skew_seconds
        print(f"Prometheus {config.prometheus.url}: its clock is {skew:+.1f} s from ours")
        findings = [
            _look(query, config, prometheus, time.time() + skew) for query in config.queries
        ]
    if abs(skew) > LARGEST_SKEW_SECONDS:
        print("  ! clock_skew: the loop will go by Prometheus' time")
    for finding in findings:
        print(f"{finding.metric}: {finding.summary}")
        for problem in finding.problems:
            print(f"  ! {problem}")
    suspicious = sum(bool(finding.problems) for finding in findings)
    print(f"{len(findings)} queries, {suspicious} to look at")
    return InputError.exit_code if suspicious else 0


def _look(query: Query, config: LoopConfig, prometheus: Prometheus, now: float) -> Finding:
    finding = Finding(query.metric)
    store = SeriesStore(
        query.labels,
        columns=_COLUMNS,
        step_seconds=query.step_seconds,
        max_series=query.max_series,
        fresh_columns=fresh_columns(config.loop, query.step_seconds),
    )
    try:
        report = QueryReader(query, prometheus, threading.Event()).read(store, now)
    except PresageError as error:
        finding.problems.append(f"{reason_of(error)}: {error}")
        return finding
    newest = store.values[store.fresh_rows(), -1]
    newest = newest[np.isfinite(newest)]
    span = f"from {newest.min():.4g} to {newest.max():.4g}" if len(newest) else "missing"
    finding.summary = (
        f"{report.series} series, newest values {span} ({query.unit}), "
        f"{now - store.newest_seconds():.0f} s old"
    )
    finding.problems += [f"{reason_of(error)}: {error}" for error in report.failures]
    finding.problems += [
        f"{reason}: {count}, such as {report.oddities.examples[reason]}"
        for reason, count in report.oddities.counts.items()
    ]
    return finding
