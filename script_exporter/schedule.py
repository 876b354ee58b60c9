"""``Schedule``: when which script runs, and how many of them at a time.

A run is due every interval, counted from the one before, never from its end; what is due while the
script still runs or waits is skipped and counted. Each run has a thread, at most
``concurrency`` of them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from script_exporter.config import Collector
from script_exporter.process import RunLimits, RunResult, ScriptRun

_LOG = logging.getLogger("script_exporter")
STATE_VARIABLE = "SCRIPT_EXPORTER_STATE_DIR"


class _Job:
    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.removed = False
        self.run: ScriptRun | None = None
        self.running = False


class Schedule:
    """``finished(collector, result)`` and ``skipped(collector, times)`` are called from threads."""

    def __init__(
        self,
        finished: Callable[[Collector, RunResult], object],
        skipped: Callable[[Collector, int], object],
    ) -> None:
        self._finished = finished
        self._skipped = skipped
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._due: list[tuple[float, int, _Job]] = []
        self._order = itertools.count()
        self._concurrency = 1
        self._state_dir = Path()
        self._running = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._dispatch, name="schedule", daemon=True)

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        """Due, but not started."""
        now = time.monotonic()
        with self._changed:
            return sum(1 for due, _, job in self._due if due <= now and not job.removed)

    def start(self) -> None:
        self._thread.start()

    def configure(self, collectors: Iterable[Collector], concurrency: int, state_dir: Path) -> None:
        """Run these from now on. One that has not changed keeps its time; others start at once."""
        with self._changed:
            before, self._jobs = self._jobs, {}
            self._concurrency = concurrency
            self._state_dir = state_dir
            for collector in collectors:
                old = before.pop(collector.key, None)
                if old is not None and old.collector == collector:
                    old.collector = collector
                    self._jobs[collector.key] = old
                    continue
                if old is not None:
                    before[collector.key] = old
                job = self._jobs[collector.key] = _Job(collector)
                heapq.heappush(self._due, (time.monotonic(), next(self._order), job))
            for old in before.values():
                old.removed = True
                if old.running and old.run is not None:
                    old.run.cancel()
            self._due = [entry for entry in self._due if not entry[2].removed]
            heapq.heapify(self._due)
            self._changed.notify_all()

    def stop(self, seconds: float) -> bool:
        """End every script; whether all of them were gone in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._stopped = True
            for job in self._jobs.values():
                if job.running and job.run is not None:
                    job.run.cancel()
            self._changed.notify_all()
            while self._running and time.monotonic() < deadline:
                self._changed.wait(max(deadline - time.monotonic(), 0.01))
            return self._running == 0

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not self._can_start():
                    self._changed.wait(self._seconds_to_wait())
                if self._stopped:
                    return
                due, _, job = heapq.heappop(self._due)
                self._running += 1
                job.running = True
                run = self._prepared(job)
            try:
                threading.Thread(
                    target=self._run, args=(job, run, due), name=job.collector.key, daemon=True
                ).start()
            except RuntimeError as error:
                # The machine has no thread left: this one waits for its next turn.
                _LOG.error("%s: not run: %s", job.collector.key, error)
                self._again(job, due)

    def _can_start(self) -> bool:
        return (
            bool(self._due)
            and self._running < self._concurrency
            and self._due[0][0] <= time.monotonic()
        )

    def _seconds_to_wait(self) -> float | None:
        if not self._due or self._running >= self._concurrency:
            return None
        return max(self._due[0][0] - time.monotonic(), 0.0)

    def _prepared(self, job: _Job) -> ScriptRun | None:
        """A new run, or None while the one before hangs in the kernel: a second would join it."""
        if job.run is not None and job.run.is_alive:
            return None
        collector = job.collector
        settings = collector.settings
        folder = self._state_folder(collector)
        job.run = ScriptRun(
            collector.command,
            RunLimits(
                timeout_seconds=collector.timeout_seconds,
                output_bytes=settings.max_output_bytes,
                processes=settings.max_processes,
                memory_bytes=settings.max_memory_mb << 20,
                own_user=bool(settings.user),
            ),
            environment={**os.environ, STATE_VARIABLE: str(folder.absolute()), **settings.env},
            user=settings.user,
        )
        return job.run

    def _state_folder(self, collector: Collector) -> Path:
        """Made for the script's user; one that cannot be made is for the script to complain of."""
        folder = self._state_dir / quote(collector.cluster, "") / quote(collector.name, "")
        with contextlib.suppress(OSError, LookupError):
            folder.mkdir(parents=True, exist_ok=True)
            if collector.settings.user:
                shutil.chown(folder, collector.settings.user)
        return folder

    def _run(self, job: _Job, run: ScriptRun | None, due: float) -> None:
        collector = job.collector
        try:
            if run is None:
                result = RunResult(
                    "stuck", None, b"", 0, 0, "", 0.0, "an earlier run still hangs in the kernel"
                )
            else:
                result = run.run()
            if not job.removed:
                self._finished(job.collector, result)
        except Exception:
            _LOG.exception("%s: a fault of the exporter's own", collector.key)
        finally:
            self._again(job, due)

    def _again(self, job: _Job, due: float) -> None:
        interval = job.collector.interval_seconds
        now = time.monotonic()
        missed = max(int((now - due) / interval), 0)
        with self._changed:
            self._running -= 1
            job.running = False
            if not job.removed:
                following = due + (missed + 1) * interval
                heapq.heappush(self._due, (following, next(self._order), job))
            self._changed.notify_all()
        if missed and not job.removed:
            self._skipped(job.collector, missed)
