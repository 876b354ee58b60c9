"""The job-failure service as a process: its parts, started, and drained when it is told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from clients import CallPolicy, TrainFailureRCAClient
from contract.errors import PresageError, ServerSetupError, ServerUnavailableError
from services.forecast_loop.config import PrometheusSettings
from services.forecast_loop.prometheus import Prometheus
from services.job_diagnosis.accepted import AcceptedLogs
from services.job_diagnosis.announcing import NoNotices, Notices
from services.job_diagnosis.app import STREAM_PATHS, make_app
from services.job_diagnosis.diagnosing import Diagnoser
from services.job_diagnosis.evidence import Source
from services.job_diagnosis.intake import Intake
from services.job_diagnosis.node_events import NodeEvents
from services.job_diagnosis.notices import NoticeSettings, make_notices
from services.job_diagnosis.record import now_utc
from services.job_diagnosis.results import ResultBook
from services.job_diagnosis.settings import JobSettings
from services.job_diagnosis.sources.file import FileSource
from services.job_diagnosis.sources.settings import SourceSettings, make_sources
from services.job_diagnosis.storage import Storage
from services.job_diagnosis.telemetry import API, Telemetry
from services.web import Protection, protect
from services.web.serving import Served
from services.web.serving import serve as serve_apps
from services.web.settings import WebSettings

NAME = "job_diagnosis"
_CLOSE_SECONDS = 5.0
_GAUGE_SECONDS = 2.0
_FORGET_EVERY_SECONDS = 3600.0


class JobService:
    """All parts but the HTTP server. Close it.

    Raises ServerSetupError: the spool or the database cannot be used.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        notices: Notices | None = None,
        sources: Mapping[str, Source[Any]] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry or Telemetry()
        self._logger = logging.getLogger("presage.jobs")
        self._lock = _lock(settings.spool)
        self.sources: dict[str, Source[Any]] = dict(sources or {})
        if settings.files_below:
            self.sources.setdefault("file", FileSource(settings.files_below))
        self.storage = Storage(settings.database_url.get_secret_value())
        self.accepted = AcceptedLogs(
            settings.spool / "accepted", limit_bytes=settings.spool_limit_bytes
        )
        self.book = ResultBook(settings.spool, self.storage, notices or NoNotices(), self.telemetry)
        self._forget_what_is_done()
        self._client = TrainFailureRCAClient(
            settings.triton_url,
            CallPolicy(deadline_seconds=settings.triton_deadline_seconds, attempts=2),
        )
        self.diagnoser = Diagnoser(
            self._client, self.accepted, self.book.keep, observe=self.telemetry.asked
        )
        self._prometheus = _prometheus(settings)
        self._node_events = (
            None
            if self._prometheus is None
            else NodeEvents(self._prometheus, window_seconds=settings.node_events_seconds)
        )
        self._stopped = threading.Event()
        self._housekeeping = threading.Thread(
            target=self._keep_house, name="housekeeping", daemon=True
        )

    def start(self) -> None:
        if len(self.accepted):
            self._logger.info("diagnosing %d logs that an earlier run left", len(self.accepted))
        self.book.start()
        self.diagnoser.start(self.settings.workers)
        self._housekeeping.start()

    def close(self) -> None:
        self._stopped.set()
        self.diagnoser.stop(_CLOSE_SECONDS)
        self.book.close(_CLOSE_SECONDS)
        self._client.close()
        if self._prometheus is not None:
            self._prometheus.close()
        self.storage.close()
        self._lock.close()

    def protected(self, web: WebSettings) -> Protection:
        """The API behind tokens and limits."""
        intake = Intake(
            self.settings,
            web,
            self.accepted,
            self.diagnoser,
            self.book,
            self.sources,
            self.telemetry,
            self._node_events,
        )
        app = make_app(
            intake,
            self.accepted,
            self.book,
            self.storage,
            self.telemetry,
            web,
            answer_seconds=self.settings.answer_seconds,
        )
        protection = protect(app, web, api=API, ready=self._not_ready, telemetry=self.telemetry.web)
        protection.stream_paths = STREAM_PATHS
        return protection

    async def _not_ready(self) -> str | None:
        """Failures are taken while model server and database are away: that is no reason."""
        if not (self.diagnoser.is_alive and self.book.is_alive):
            return "a worker ended"
        if self.accepted.size_bytes > 0.9 * self.settings.spool_limit_bytes:
            return "too many logs wait for their diagnosis"
        return None

    def _forget_what_is_done(self) -> None:
        """Killed after a result was kept and before its log was dropped."""
        try:
            known = self.book.known(self.accepted.ids())
        except ServerSetupError:
            raise
        except PresageError as error:
            self._logger.warning("starting without a database: %s", error)
            return
        for result_id in known:
            self.accepted.done(result_id)

    def _keep_house(self) -> None:
        forget_at = time.monotonic()
        while not self._stopped.wait(_GAUGE_SECONDS):
            self.telemetry.backlog({"accepted": len(self.accepted), **self.book.backlogs})
            oldest = self.accepted.oldest_received_at()
            self.telemetry.accepted(
                self.accepted.size_bytes,
                self.accepted.limit_bytes,
                0.0 if oldest is None else (now_utc() - oldest).total_seconds(),
            )
            if self.settings.retention_days and time.monotonic() >= forget_at:
                forget_at = time.monotonic() + _FORGET_EVERY_SECONDS
                try:
                    count = self.storage.forget(self.settings.retention_days)
                except ServerUnavailableError:
                    continue
                except Exception:
                    self._logger.exception("old results cannot be dropped")
                    continue
                if count:
                    self._logger.info("%d results were too old to keep", count)


def serve(
    settings: JobSettings,
    web: WebSettings,
    *,
    notices: NoticeSettings | None = None,
    sources: SourceSettings | None = None,
) -> int:
    """Until SIGTERM or SIGINT. Exit code 0. Raises ConfigError, ServerSetupError."""
    web.check_exposure()
    telemetry = Telemetry()
    service = JobService(
        settings,
        notices=make_notices(notices or NoticeSettings(), telemetry.web.registry),
        sources=make_sources(sources or SourceSettings()),
        telemetry=telemetry,
    )
    service.start()

    async def closing() -> None:
        await asyncio.to_thread(service.close)

    return serve_apps(
        [Served(service.protected(web), settings.port)], web, name=NAME, closing=closing
    )


def _lock(folder: Path) -> IO[str]:
    """Two processes on one spool would diagnose everything twice. Raises ServerSetupError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ServerSetupError(
            "the spool cannot be used",
            where=str(folder),
            got=error.strerror or str(error),
            next_command="stop the other process that uses it, or choose another --spool",
        ) from error
    return lock


def _prometheus(settings: JobSettings) -> Prometheus | None:
    if settings.prometheus_url is None:
        return None
    # One attempt, soon given up: a diagnosis waits for it.
    return Prometheus(
        PrometheusSettings(
            url=settings.prometheus_url,
            timeout_seconds=5.0,
            attempts=1,
            bearer_token_file=settings.prometheus_token_file,
        )
    )
