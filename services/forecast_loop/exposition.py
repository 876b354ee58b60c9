"""Text for Prometheus (format 0.0.4), rendered once a cycle and served as bytes."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from clients.results import Array
from contract.metric_names import (
    HORIZON_LABEL,
    METRIC_LABEL,
    QUANTILE_LABEL,
    RESIDUAL_HORIZON,
    RESIDUAL_SIGMA,
    TIMESTAMP,
    forecast_name,
    quantile_name,
)
from services.forecast_loop.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SEVEN_DIGITS = ".7g"
"""What float32 holds."""
_MILLISECONDS = ".3f"
_BLOCK_ROWS = 10_000
"""Rendered at a time: a line is a Python object only until its block is joined."""


class Page:
    """One scrape's bytes; ``expires_seconds`` is when a forecast on it gets too old."""

    def __init__(self, body: bytes, expires_seconds: float) -> None:
        self.body = body
        self.expires_seconds = expires_seconds
        self._lock = threading.Lock()

    def gzipped(self) -> bytes:
        """Packed when first asked for, then kept. Level 1: it is a hundredth of the network."""
        with self._lock:
            return self._gzipped

    @cached_property
    def _gzipped(self) -> bytes:
        return gzip.compress(self.body, compresslevel=1, mtime=0)


class Exposition:
    """What /metrics serves at any time: the newest page, without what has become too old.

    ``own_metrics``: renders the loop's own metrics; ``clock``: Unix seconds, Prometheus'.
    """

    def __init__(self, own_metrics: Callable[[], bytes], clock: Callable[[], float]) -> None:
        self._own_metrics = own_metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshots: list[Snapshot] = []
        self._page = Page(own_metrics(), float("inf"))

    def publish(self, snapshots: Sequence[Snapshot]) -> Page:
        """Render the new page, and serve it from then on."""
        page = render_page(snapshots, self._own_metrics())
        with self._lock:
            self._snapshots, self._page = list(snapshots), page
        return page

    def current(self) -> Page:
        with self._lock:
            now = self._clock()
            if now >= self._page.expires_seconds:  # the loop hangs: nobody else removes them
                self._snapshots = [s for s in self._snapshots if now < s.expires_seconds]
                self._page = render_page(self._snapshots, self._own_metrics())
            return self._page


def render_page(snapshots: Sequence[Snapshot], own_metrics: bytes) -> Page:
    """Families in one piece each, as the format demands, then the loop's own."""
    shown = [snapshot for snapshot in snapshots if snapshot.keys]
    parts: list[bytes] = []
    labels = {snapshot.metric: _label_texts(snapshot) for snapshot in shown}
    for snapshot in shown:
        parts += _forecasts(snapshot, labels[snapshot.metric])
    if shown:
        parts.append(_head(TIMESTAMP, "When the forecast was made, Unix time."))
    for snapshot in shown:
        parts += _timestamps(snapshot, labels[snapshot.metric])
    if shown:
        parts.append(_head(RESIDUAL_SIGMA, "Running scale of the errors of past forecasts."))
    for snapshot in shown:
        parts += _sigmas(snapshot, labels[snapshot.metric])
    expires = min((snapshot.expires_seconds for snapshot in shown), default=float("inf"))
    return Page(b"".join([*parts, own_metrics]), expires)


def escape(value: str) -> str:
    """A label's value as it stands between quotes."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def _label_texts(snapshot: Snapshot) -> list[str]:
    """``clu_name="a",group="b"`` of each series."""
    form = ",".join(f'{name}="%s"' for name in snapshot.labels)
    return [form % tuple(map(escape, key)) for key in snapshot.keys]


def _head(name: str, text: str) -> bytes:
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n".encode()


def _lines(
    before: str, labels: list[str], after: str, values: Array, form: str = _SEVEN_DIGITS
) -> Iterator[bytes]:
    """``before`` + labels + ``after`` + value, a line a series, in blocks; NaN is left out."""
    for start in range(0, len(labels), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        lines = [
            f"{before}{text}{after}{value:{form}}\n"
            for text, value in zip(labels[block], values[block].tolist(), strict=True)
            if value == value
        ]
        yield "".join(lines).encode()


def _forecasts(snapshot: Snapshot, labels: list[str]) -> Iterator[bytes]:
    name = forecast_name(snapshot.metric)
    yield _head(name, f"Forecast of {snapshot.metric} at the horizon from now, median.")
    for column, horizon in enumerate(snapshot.horizons):
        after = f',{HORIZON_LABEL}="{horizon}"}} '
        yield from _lines(f"{name}{{", labels, after, snapshot.median[:, column])
    if snapshot.quantiles is None:
        return
    name = quantile_name(snapshot.metric)
    yield _head(name, f"Forecast of {snapshot.metric} at the horizon from now, a quantile.")
    for column, horizon in enumerate(snapshot.horizons):
        for index, level in enumerate(snapshot.quantile_levels):
            after = f',{HORIZON_LABEL}="{horizon}",{QUANTILE_LABEL}="{level:g}"}} '
            yield from _lines(f"{name}{{", labels, after, snapshot.quantiles[:, column, index])


def _timestamps(snapshot: Snapshot, labels: list[str]) -> Iterator[bytes]:
    before = f'{TIMESTAMP}{{{METRIC_LABEL}="{snapshot.metric}",'
    for horizon in snapshot.horizons:
        after = f'{HORIZON_LABEL}="{horizon}"}} '
        if snapshot.timestamp_per == "query":
            yield f"{before}{after}{snapshot.made_seconds.min():{_MILLISECONDS}}\n".encode()
            continue
        made = snapshot.made_seconds
        yield from _lines(before, labels, "," + after, made, _MILLISECONDS)


def _sigmas(snapshot: Snapshot, labels: list[str]) -> Iterator[bytes]:
    before = f'{RESIDUAL_SIGMA}{{{METRIC_LABEL}="{snapshot.metric}",'
    after = f',{HORIZON_LABEL}="{RESIDUAL_HORIZON}"}} '
    yield from _lines(before, labels, after, snapshot.sigma)
