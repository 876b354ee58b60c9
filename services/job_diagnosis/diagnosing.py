"""``Diagnoser``: accepted logs → records, by a few threads that ask the model server."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from clients import Diagnosis, TrainFailureRCAClient
from clients.results import Cause, EvidenceLine
from clients.thinning import ThinnedLog, thin
from contract.errors import (
    DeadlineExceededError,
    OverloadedError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
    UnknownModelError,
)
from services.job_diagnosis.accepted import AcceptedLog, AcceptedLogs
from services.job_diagnosis.culprit import find_culprit
from services.job_diagnosis.record import JobRecord, now_utc
from services.problems import ProblemLog

EXCERPT_BYTES = 32 << 10
_LONGEST_EVIDENCE = 4_096
_LOGS_AT_ONCE = 8
_BYTES_AT_ONCE = 4 << 20
_FIRST_DELAY_SECONDS = 0.5
_LARGEST_DELAY_SECONDS = 3.0
_ATTEMPTS = 3
_LOG_AGAIN_SECONDS = 60.0
# The server is away or has too much to do: the same log may succeed later.
_LATER = (
    ServerUnavailableError,
    OverloadedError,
    DeadlineExceededError,
    UnknownModelError,
)


class PostponedError(Exception):
    """The log is kept, and diagnosed once the reason is gone."""


class Diagnoser:
    """Diagnoses whatever is accepted, the oldest first; nothing leaves ``accepted`` before ``keep``
    returned.

    keep: takes records, durably. observe: told of each call: outcome, seconds, logs.
    """

    def __init__(
        self,
        client: TrainFailureRCAClient,
        accepted: AcceptedLogs,
        keep: Callable[[Sequence[JobRecord]], None],
        *,
        observe: Callable[[str, float, int], None] = lambda outcome, seconds, logs: None,
    ) -> None:
        self._client = client
        self._accepted = accepted
        self._keep = keep
        self._observe = observe
        self._wake = threading.Condition()
        self._queue: deque[str] = deque(accepted.ids())
        self._futures: dict[str, Future[JobRecord]] = {}
        self._attempts: dict[str, int] = {}
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._logger = logging.getLogger("presage.jobs")
        self._problems = ProblemLog(self._logger, _LOG_AGAIN_SECONDS)
        self.trouble: str | None = None
        """Why nothing is diagnosed just now."""

    def start(self, workers: int) -> None:
        for number in range(workers):
            thread = threading.Thread(target=self._run, name=f"diagnosis-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, result_id: str) -> Future[JobRecord]:
        """The record to come of a log that was just put into ``accepted``.

        Its error: PostponedError, or ServerAnswerError (the model cannot read it, and never will).
        """
        with self._wake:
            self._queue.append(result_id)
            self._wake.notify()
        return self.join(result_id) or _done(PostponedError("it is kept"))

    def join(self, result_id: str) -> Future[JobRecord] | None:
        """The record to come of a log that waits already; None: it does not."""
        with self._wake:
            future = self._futures.get(result_id)
            if future is None and result_id in self._accepted:
                future = self._futures[result_id] = Future()
                # Whoever waits may go; the diagnosis goes on.
                future.set_running_or_notify_cancel()
        if future is not None and self.trouble is not None:
            # Not worth waiting for; it is diagnosed all the same.
            self._fail(result_id, PostponedError(self.trouble))
        return future

    def stop(self, seconds: float) -> None:
        """What is being diagnosed may end; what waits stays accepted."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for result_id in list(self._futures):
            self._fail(result_id, PostponedError("the service is shutting down"))

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while (taken := self._take()) is not None:
            ids = list(taken)
            try:
                self._diagnose(taken)
            except _LATER as error:
                self.trouble = str(error)
                self._problems.report("model server", error.metric_label, str(error))
                self._put_back(ids, PostponedError(self.trouble))
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping, delay)
                delay = min(2 * delay, _LARGEST_DELAY_SECONDS)
                continue
            except PresageError as error:
                self._set_aside(ids, error)
            except Exception as error:
                self._logger.exception("diagnosis of %s failed", ", ".join(ids))
                self._set_aside(ids, ServerAnswerError("it broke inside", got=repr(error)[:200]))
            else:
                self.trouble = None
            delay = _FIRST_DELAY_SECONDS

    def _take(self) -> dict[str, AcceptedLog] | None:
        """The next logs, small ones together; None: stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._stopping)
            if self._stopping:
                return None
            ids = [self._queue.popleft() for _ in range(min(_LOGS_AT_ONCE, len(self._queue)))]
        taken: dict[str, AcceptedLog] = {}
        size = 0
        for position, result_id in enumerate(ids):
            try:
                log = self._accepted.load(result_id)
            except FileNotFoundError:
                continue  # done already: it was submitted twice
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._set_aside([result_id], ServerAnswerError("unreadable", got=repr(error)))
                continue
            size += len(log.text)
            if taken and (size > _BYTES_AT_ONCE or result_id in self._attempts):
                with self._wake:
                    self._queue.extendleft(reversed(ids[position:]))
                    self._wake.notify()
                break
            taken[result_id] = log
            if result_id in self._attempts:
                # It spoiled a batch before: alone, or it spoils the next one.
                with self._wake:
                    self._queue.extendleft(reversed(ids[position + 1 :]))
                break
        return taken

    def _diagnose(self, taken: dict[str, AcceptedLog]) -> None:
        if not taken:
            return
        started = time.monotonic()
        outcome = "ok"
        try:
            diagnoses = self._client.diagnose([log.text for log in taken.values()])
        except PresageError as error:
            outcome = error.metric_label
            raise
        finally:
            self._observe(outcome, time.monotonic() - started, len(taken))
        records = [
            make_record(log, diagnosis)
            for log, diagnosis in zip(taken.values(), diagnoses, strict=True)
        ]
        self._keep(records)
        for record in records:
            with self._wake:
                self._accepted.done(record.result_id)
                self._attempts.pop(record.result_id, None)
                future = self._futures.pop(record.result_id, None)
            if future is not None:
                future.set_result(record)

    def _put_back(self, ids: Sequence[str], reason: Exception) -> None:
        with self._wake:
            self._queue.extendleft(reversed(ids))
            waiting = [*ids, *self._queue]
        for result_id in waiting:
            self._fail(result_id, reason)

    def _set_aside(self, ids: Sequence[str], error: PresageError) -> None:
        """Each alone once more, a few times; what the server cannot read is refused for good."""
        for result_id in ids:
            attempts = self._attempts[result_id] = self._attempts.get(result_id, 0) + 1
            if attempts < _ATTEMPTS:
                with self._wake:
                    self._queue.append(result_id)
                    self._wake.notify()
                continue
            self._logger.error("%s is set aside: %s", result_id, error)
            self._attempts.pop(result_id, None)
            self._accepted.refuse(result_id, str(error))
            self._fail(result_id, error)

    def _fail(self, result_id: str, reason: Exception) -> None:
        future = self._futures.pop(result_id, None)
        if future is not None:
            future.set_exception(reason)


def _done(error: Exception) -> Future[JobRecord]:
    future: Future[JobRecord] = Future()
    future.set_exception(error)
    return future


def make_record(log: AcceptedLog, diagnosis: Diagnosis) -> JobRecord:
    """Line numbers are those of the log as it was sent."""
    facts = log.facts
    numbers = ThinnedLog(b"", list(log.line_numbers))
    causes = tuple(_with_numbers(cause, numbers) for cause in diagnosis.causes)
    node, device = find_culprit(causes)
    excerpt = thin(log.text, EXCERPT_BYTES).text.decode("utf-8", "replace")
    return JobRecord(
        result_id=facts.result_id,
        job_id=facts.job_id,
        log_sha256=facts.log_sha256,
        size_bytes=facts.size_bytes,
        source=facts.source,
        cluster=facts.cluster,
        node=facts.node or node,
        device=facts.device or device,
        user=facts.user,
        started_at=facts.started_at,
        finished_at=facts.finished_at,
        received_at=facts.received_at,
        diagnosed_at=now_utc(),
        causes=causes,
        root=diagnosis.root,
        unknown=diagnosis.unknown,
        probabilities=diagnosis.probabilities,
        model_version=diagnosis.model_version,
        excerpt=excerpt,
    )


def _with_numbers(cause: Cause, numbers: ThinnedLog) -> Cause:
    return replace(
        cause,
        evidence=tuple(
            EvidenceLine(
                numbers.original(line.line_number),
                # PostgreSQL keeps no NUL, and nobody reads an endless line.
                line.text.replace("\0", " ")[:_LONGEST_EVIDENCE],
            )
            for line in cause.evidence
        ),
    )
