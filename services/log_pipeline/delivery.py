"""``Delivery``: events → answers → counters, templates, outlets and alerts."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from contract.errors import PresageError, ServerError
from services.log_pipeline.alerting import Alerting
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.event import Event
from services.log_pipeline.outlets import Anomaly, Outlet
from services.log_pipeline.telemetry import Telemetry
from services.log_pipeline.templates import TemplateBook, template_id
from services.problems import ProblemLog
from services.spool import Spool

_FIRST_DELAY_SECONDS = 0.2
_LARGEST_DELAY_SECONDS = 3.0
_READ_BYTES = 4 << 20
_LOG_AGAIN_SECONDS = 60.0
_TOLD_TEMPLATES = 1_000
T = TypeVar("T")


class StoppedError(Exception):
    """Told to stop while something had to be repeated; nothing of it is delivered."""


class Delivery:
    """For one thread. What fails for reasons of a server's is repeated until it works.

    Example::

        delivery.deliver([(event, "spool-0")])
    """

    def __init__(
        self,
        classifier: LineClassifier,
        outlets: Sequence[Outlet],
        *,
        alerting: Alerting | None = None,
        telemetry: Telemetry | None = None,
        book: TemplateBook | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._classifier = classifier
        self._outlets = list(outlets)
        self._alerting = alerting
        self.telemetry = telemetry or Telemetry()
        self.book = TemplateBook() if book is None else book
        self._stop = stop or threading.Event()
        self._problems = ProblemLog(logging.getLogger("log_pipeline"), _LOG_AGAIN_SECONDS)
        self.trouble: str | None = None
        """What is being repeated just now."""

    def deliver(self, events: Sequence[tuple[Event, str]]) -> int:
        """Every event with its id, in order; the anomalies among them. Raises StoppedError."""
        if not events:
            self.tell()
            return 0
        lines = [event.line for event, _ in events]
        answers = self._repeat(
            "classifier",
            lambda: self._classifier.classify(lines),
            lambda error: self.telemetry.classifier_failed(error.metric_label),
        )
        forms = answers.forms
        ids = [template_id(form.masked) if form.is_anomaly else "" for form in forms]
        codes = answers.codes.tolist()
        anomalies = []
        for index in answers.anomalies().tolist():
            event, name = events[index]
            form = forms[codes[index]]
            anomalies.append(
                Anomaly(name, event, form.score, ids[codes[index]], form.model_version)
            )
        if anomalies:
            for outlet in self._outlets:
                self._repeat(
                    outlet.name,
                    lambda outlet=outlet: outlet.deliver(anomalies),  # type: ignore[misc]
                    lambda _, outlet=outlet: self.telemetry.outlet_failed(outlet.name),  # type: ignore[misc]
                )
        self._note(
            anomalies, {form_id: form.masked for form_id, form in zip(ids, forms, strict=True)}
        )
        # Last: who sees a line counted finds its anomaly in every other place.
        self._count(events, codes, [self._label(form.score, form.is_anomaly) for form in forms])
        self.telemetry.classifier(self._classifier)
        self.tell()
        return len(anomalies)

    def tell(self) -> None:
        """Alerts are told again later if it fails: what Alertmanager misses is not lost."""
        if self._alerting is None:
            return
        try:
            self._alerting.tell(self.book.top(_TOLD_TEMPLATES))
        except ServerError as error:
            self.telemetry.outlet_failed(self._alerting.name)
            self._problems.report(self._alerting.name, error.metric_label, str(error))

    def close(self) -> None:
        for outlet in self._outlets:
            outlet.close()
        if self._alerting is not None:
            self._alerting.close()

    @staticmethod
    def _label(score: float, is_anomaly: bool) -> str:
        if score != score:
            return "blank"
        return "anomaly" if is_anomaly else "normal"

    def _count(
        self, events: Sequence[tuple[Event, str]], codes: Sequence[int], labels: Sequence[str]
    ) -> None:
        counts = Counter(
            (event.source, labels[code]) for (event, _), code in zip(events, codes, strict=True)
        )
        for (source, label), count in counts.items():
            self.telemetry.lines(source, label, count)

    def _note(self, anomalies: Sequence[Anomaly], masked: dict[str, str]) -> None:
        groups: dict[tuple[str, str], list[Anomaly]] = {}
        for anomaly in anomalies:
            groups.setdefault((anomaly.event.source, anomaly.template), []).append(anomaly)
        for (source, template), members in groups.items():
            last = max(members, key=lambda member: member.event.seen)
            first = min(member.event.seen for member in members)
            # The earliest line opens the template, the latest is its newest sight.
            for count, seen in ((0, first), (len(members), last.event.seen)):
                self.book.add(
                    source,
                    masked[template],
                    count,
                    example=last.event.line,
                    score=last.score,
                    seen=seen,
                )
            self.telemetry.anomalies(source, template, len(members))

    def _repeat(
        self, concerns: str, attempt: Callable[[], T], failed: Callable[[PresageError], None]
    ) -> T:
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                result = attempt()
            except ServerError as error:
                failed(error)
                self.trouble = f"{concerns}: {error}"
                self._problems.report(concerns, error.metric_label, str(error))
            else:
                self.trouble = None
                return result
            if self._stop.wait(delay):
                raise StoppedError(concerns)
            delay = min(delay * 2, _LARGEST_DELAY_SECONDS)


class SpoolWorker(threading.Thread):
    """Delivers what the spool holds, batch by batch, and commits each one."""

    def __init__(self, spool: Spool, delivery: Delivery, stop: threading.Event) -> None:
        super().__init__(name="delivery", daemon=True)
        self._spool = spool
        self._delivery = delivery
        self._stop_event = stop
        self._replayed_until = spool.position + spool.replayed_bytes
        self.failed: BaseException | None = None
        self.delivered = 0

    def run(self) -> None:
        try:
            while not self._stop_event.is_set():
                self.step(1.0)
        except StoppedError:
            return
        except BaseException as error:
            logging.getLogger("log_pipeline").exception("delivery ended")
            self.failed = error

    def step(self, timeout_seconds: float) -> int:
        """One batch; the events in it."""
        records = self._spool.read(_READ_BYTES, timeout_seconds)
        events = []
        for position, record in records:
            try:
                events.append((Event.unpack(record), f"{self._spool.identity}-{position}"))
            except (ValueError, TypeError):
                # Another program's bytes among ours: told, not fatal.
                self._delivery.telemetry.odd_spool()
        replayed = sum(1 for position, _ in records if position < self._replayed_until)
        self._delivery.deliver(events)
        if records:
            self._spool.commit()
            self._delivery.telemetry.replayed(replayed)
            self.delivered += len(events)
        # Silence is no lag: with nothing to deliver the clock goes on, too.
        self._delivery.telemetry.delivered()
        self._delivery.telemetry.backlog(self._spool.backlog_bytes)
        return len(events)


def drain(worker: SpoolWorker, spool: Spool, seconds: float) -> bool:
    """Wait until everything is delivered; False: it was not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while spool.backlog_bytes and worker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not spool.backlog_bytes
