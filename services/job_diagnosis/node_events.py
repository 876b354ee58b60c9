"""``NodeEvents``: what the script exporter saw on a job's node while it ran, as kernel log lines.

A job's own log says that a peer was lost; that a link of its node flapped, or a GPU fell off the
bus, is in Prometheus. It is read from the series of ``infiniband.py``, ``gpu_events.py`` and
``npu_optical.py`` (script_exporter/collectors) and worded as the kernel words it, which is what the
model has learnt to read.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from contract.errors import PresageError
from services.problems import ProblemLog

SEEN_SECONDS = 120.0
"""A fault is scraped some time after it happened, and the job may be dead by then."""
MOST_LINES = 50
LONGEST_SECONDS = 7 * 86_400.0
BEFORE_SECONDS = 300.0
"""A fault shortly before the job began may be what it died of."""
_LOG_AGAIN_SECONDS = 300.0

FLAP = "infiniband_link_flap_last_timestamp_seconds"
XID = "gpu_xid_last_timestamp_seconds"
DOWNED = "node_infiniband_link_downed_total"
NPU_DOWN = "npu_link_down_changes_total"

Vector = list[tuple[dict[str, str], float]]


class VectorSource(Protocol):
    """As ``services.forecast_loop.prometheus.Prometheus``; raises PresageError."""

    def vector(self, expression: str, now_seconds: float) -> Vector: ...


class NodeEvents:
    """``lines`` never fails: a Prometheus that is away costs the evidence, not the diagnosis.

    window_seconds: how far back where nobody says when the job began
    """

    def __init__(
        self,
        prometheus: VectorSource,
        *,
        window_seconds: float = 1800.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prometheus = prometheus
        self._window_seconds = window_seconds
        self._clock = clock
        self._problems = ProblemLog(logging.getLogger("presage.jobs"), _LOG_AGAIN_SECONDS)

    def lines(
        self, node: str | None, started_at: datetime | None, finished_at: datetime | None
    ) -> tuple[str, ...]:
        """Oldest first; a node is known to Prometheus as ``node``, or as ``instance``."""
        if not node:
            return ()
        now = self._clock()
        end = now if finished_at is None else min(finished_at.timestamp(), now)
        begin = end - self._window_seconds
        if started_at is not None:
            begin = started_at.timestamp() - BEFORE_SECONDS
        end = min(end + SEEN_SECONDS, now)
        window = max(60, int(min(end - begin, LONGEST_SECONDS)))
        try:
            found = [*self._flaps(node, end, window), *self._xids(node, end, window)]
            found += self._counted(node, end, window, {device for _, device, _ in found})
        except PresageError as error:
            self._problems.report("Prometheus", error.metric_label, str(error))
            return ()
        found.sort(key=lambda one: one[0])
        return tuple(
            f"[{time.strftime('%a %b %e %H:%M:%S %Y', time.gmtime(seconds))}] {_plain(node)} "
            f"kernel: {text}"
            for seconds, _, text in found[-MOST_LINES:]
        )

    def _flaps(self, node: str, end: float, window: int) -> Iterable[tuple[float, str, str]]:
        for labels, seconds in self._newest(FLAP, node, end, window):
            cause = labels.get("cause", "unknown").replace("_", " ")
            where = " ".join(filter(None, (labels.get("pci"), labels.get("netdev"))))
            text = f"mlx5_core {where}: Link down"
            if cause != "unknown":
                text += f", Port module event: {cause}"
            yield seconds, labels.get("device", ""), _plain(text)

    def _xids(self, node: str, end: float, window: int) -> Iterable[tuple[float, str, str]]:
        for labels, seconds in self._newest(XID, node, end, window):
            device, xid, meaning = (labels.get(key, "") for key in ("device", "xid", "meaning"))
            kind = "nvidia-nvswitch: SXid" if xid.startswith("S") else "NVRM: Xid"
            text = f"{kind} (PCI:{device}): {xid.removeprefix('S')}, {meaning}"
            yield seconds, device, _plain(text)

    def _counted(
        self, node: str, end: float, window: int, known: set[str]
    ) -> Iterable[tuple[float, str, str]]:
        """Flaps that only counters tell: of InfiniBand proper, and of NPUs. Told at the end."""
        for labels, times in self._ask("increase({}) > 0", DOWNED, node, end, window):
            device = labels.get("device", "")
            if device not in known:
                port = labels.get("port", "1")
                text = f"infiniband {device}: port {port}: Link down, {max(1, round(times))} times"
                yield end, device, _plain(text)
        for labels, times in self._ask("increase({}) > 0", NPU_DOWN, node, end, window):
            npu = labels.get("npu", "")
            yield end, npu, _plain(f"NPU {npu}: network link down, {max(1, round(times))} times")

    def _newest(self, metric: str, node: str, end: float, window: int) -> Vector:
        found = self._ask("last_over_time({})", metric, node, end, window)
        return [(labels, seconds) for labels, seconds in found if end - window <= seconds <= end]

    def _ask(self, form: str, metric: str, node: str, end: float, window: int) -> Vector:
        exact = json.dumps(node, ensure_ascii=False)
        with_port = json.dumps(f"{re.escape(node)}(:[0-9]+)?", ensure_ascii=False)
        parts = (
            form.format(f"{metric}{{{matcher}}}[{window}s]")
            for matcher in (f"node={exact}", f'node="",instance=~{with_port}')
        )
        return self._prometheus.vector(" or ".join(parts), end)


def _plain(text: str) -> str:
    """One line, however a label reads."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)[:500]
