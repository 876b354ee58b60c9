"""How the forecast loop's first cycle grows with the number of series.

The loop is a process of its own, as in service: it reads a day of every series, asks a running
tritonserver, and is scraped. Its memory is the kernel's own peak for that process.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ServerAnswerError
from loadtest.services.forecast_loop_source import (
    METRIC,
    SHARD_LABEL,
    STEP_SECONDS,
    RecordedPrometheus,
    real_prometheus,
)

_POINTS = 288
_LARGEST_REAL = 5_000
"""Beyond it Prometheus' own backfill takes longer than what is measured."""
_CYCLE = re.compile(
    r"cycle (\w+): (\d+) series in ([\d.]+) s \(read ([\d.]+), forecast ([\d.]+), "
    r"publish ([\d.]+)\)"
)
_CONFIG = """
[prometheus]
url = "{url}"
timeout_seconds = 120
concurrency = {concurrency}
[triton]
url = "{triton}"
preset = "{preset}"
deadline_seconds = 300
in_flight = {in_flight}
[loop]
interval = "10m"
listen = "127.0.0.1:0"
state_file = "{state}"
timestamp_per = "{timestamp_per}"
[[queries]]
metric = "{metric}"
labels = ["clu_name", "group"]
unit = "ratio"
history = "1d"
step = "{step}s"
shard_by = "{shard_by}"
shard_values = 2
max_series = {series}
"""


@dataclass(frozen=True)
class ScaleSettings:
    """What every run shares."""

    triton_url: str
    preset: str = "12h"
    timestamp_per: str = "series"
    concurrency: int = 2
    in_flight: int = 4
    timeout_seconds: float = 600.0


@dataclass(frozen=True)
class ScaleRow:
    """One measured run; seconds of wall clock, but ``cpu_seconds``: of the loop's process alone."""

    source: str
    series: int
    forecast_series: int
    read_seconds: float
    forecast_seconds: float
    publish_seconds: float
    scrape_seconds: float
    cycle_seconds: float
    page_bytes: int
    peak_bytes: int
    cpu_seconds: float

    @property
    def total_seconds(self) -> float:
        """From the first question to the last byte of a scrape."""
        return self.cycle_seconds + self.scrape_seconds


def measure_scale(sizes: Sequence[int], settings: ScaleSettings, *, real: bool) -> list[ScaleRow]:
    """A row for each size and source. Raises ServerAnswerError when a cycle did not succeed."""
    rows = []
    for series in sizes:
        if real and series <= _LARGEST_REAL:
            with tempfile.TemporaryDirectory() as folder:
                source = real_prometheus(series, _POINTS, Path(folder) / "prometheus")
                with source as url:
                    rows.append(_measure(url, "prometheus", series, settings))
        with RecordedPrometheus(series) as recorded:
            rows.append(_measure(recorded.url, "recorded", series, settings))
    return rows


def _measure(url: str, source: str, series: int, settings: ScaleSettings) -> ScaleRow:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "loop.toml"
        config.write_text(
            _CONFIG.format(
                url=url,
                triton=settings.triton_url,
                preset=settings.preset,
                state=Path(folder) / "state.npz",
                timestamp_per=settings.timestamp_per,
                concurrency=settings.concurrency,
                in_flight=settings.in_flight,
                metric=METRIC,
                shard_by=SHARD_LABEL,
                step=STEP_SECONDS,
                series=series,
            )
        )
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services", "forecast_loop", "run", "--config", str(config)],
                stdout=log,
                stderr=log,
            )
        try:
            cycle = _wait_cycle(log_file, process, settings.timeout_seconds)
            address = re.search(r"http://\S+/metrics", log_file.read_text())
            assert address is not None
            began = time.perf_counter()
            with urllib.request.urlopen(address[0], timeout=120) as answer:
                page = answer.read()
            scrape_seconds = time.perf_counter() - began
            process.send_signal(signal.SIGTERM)
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(ChildProcessError):
                _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # waited for above, for its peak of memory
    result, forecast, *seconds = cycle.groups()
    if result != "ok":
        raise ServerAnswerError("the loop's cycle did not succeed", expected="ok", got=cycle[0])
    whole, read, forecasting, publish = map(float, seconds)
    return ScaleRow(
        source=source,
        series=series,
        forecast_series=int(forecast),
        read_seconds=read,
        forecast_seconds=forecasting,
        publish_seconds=publish,
        scrape_seconds=scrape_seconds,
        cycle_seconds=whole,
        page_bytes=len(page),
        peak_bytes=usage.ru_maxrss * 1024,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
    )


def _wait_cycle(
    log_file: Path, process: subprocess.Popen[bytes], timeout_seconds: float
) -> re.Match[str]:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        text = log_file.read_text("utf-8", "replace")
        if found := _CYCLE.search(text):
            return found
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise ServerAnswerError(
        "the loop finished no cycle",
        expected=f"one within {timeout_seconds:g} s",
        got=log_file.read_text("utf-8", "replace")[-500:],
    )


def growth_exponent(rows: Sequence[ScaleRow]) -> float:
    """b of total seconds ~ series^b, least squares on logarithms; NaN below two sizes."""
    points = [(math.log(row.series), math.log(row.total_seconds)) for row in rows]
    if len({x for x, _ in points}) < 2:
        return math.nan
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    below: float = sum((x - mean_x) ** 2 for x, _ in points)
    return above / below


def scale_table(rows: Sequence[ScaleRow], settings: ScaleSettings) -> str:
    """The rows as Markdown, and how the total grows."""
    lines = [
        "| source | series | read s | forecast s | publish s | scrape s | total s | series/s "
        "| CPU s | peak RSS MB | page MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.source} | {row.series:,} | {row.read_seconds:.1f} "
            f"| {row.forecast_seconds:.1f} | {row.publish_seconds:.1f} "
            f"| {row.scrape_seconds:.2f} | {row.total_seconds:.1f} "
            f"| {row.series / row.total_seconds:,.0f} | {row.cpu_seconds:.1f} "
            f"| {row.peak_bytes / 1e6:,.0f} | {row.page_bytes / 1e6:.1f} |"
        )
    lost = sum(row.series - row.forecast_series for row in rows)
    recorded = [row for row in rows if row.source == "recorded"]
    lines += [
        "",
        f"Model metric_forecast_{settings.preset}; a day of {_POINTS} points a series; "
        f"{os.cpu_count()} cores shared with the server that answers and tritonserver; "
        f"CPU s is the loop's own; {lost} series without a forecast.",
    ]
    if not math.isnan(growth_exponent(recorded)):
        lines.append(f"total ~ series^{growth_exponent(recorded):.2f} (recorded answers)")
    return "\n".join(lines)
