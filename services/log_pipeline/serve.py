"""``serve``: the receiver, its spool and the delivery behind it, until told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from contract.errors import ServerSetupError
from services.log_pipeline.alerting import Alerting
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.delivery import Delivery, SpoolWorker, drain
from services.log_pipeline.outlets import Elasticsearch, JsonLines, Outlet
from services.log_pipeline.receiver import Receiver
from services.log_pipeline.telemetry import Telemetry
from services.log_pipeline.templates import TemplateBook
from services.spool import Spool

DRAIN_SECONDS = 8.0
"""What is not delivered by then stays in the spool for the next start."""


@dataclass(frozen=True)
class OutletSettings:
    """Where anomalies go; none of them: only /metrics and /top tell."""

    json_lines: Path | None = None
    elasticsearch: str | None = None
    elasticsearch_index: str = "presage-anomalies"
    elasticsearch_api_key: str = field(default="", repr=False)
    alertmanager: str | None = None

    def outlets(self) -> list[Outlet]:
        made: list[Outlet] = []
        if self.json_lines is not None:
            made.append(JsonLines(self.json_lines))
        if self.elasticsearch is not None:
            made.append(
                Elasticsearch(
                    self.elasticsearch, self.elasticsearch_index, self.elasticsearch_api_key
                )
            )
        return made

    def alerting(self) -> Alerting | None:
        return None if self.alertmanager is None else Alerting(self.alertmanager, clock=time.time)


@dataclass(frozen=True)
class ServeSettings:
    """``listen``: host:port, port 0 takes a free one."""

    listen: str = "127.0.0.1:9200"
    spool: Path = Path("build/log_pipeline/spool")
    spool_limit_bytes: int = 1 << 30
    fsync: bool = True


def serve(classifier: LineClassifier, settings: ServeSettings, outlets: OutletSettings) -> int:
    """Until SIGTERM or SIGINT. Exit code 0.

    Raises ServerSetupError: it cannot listen, or the spool cannot be used.
    """
    logger = logging.getLogger("log_pipeline")
    stop = threading.Event()
    listener = _listen(settings.listen)
    spool = Spool(settings.spool, limit_bytes=settings.spool_limit_bytes, fsync=settings.fsync)
    telemetry, book = Telemetry(), TemplateBook()
    telemetry.backlog_limit(settings.spool_limit_bytes)
    telemetry.delivered()
    delivery = Delivery(
        classifier,
        outlets.outlets(),
        alerting=outlets.alerting(),
        telemetry=telemetry,
        book=book,
        stop=stop,
    )
    worker = SpoolWorker(spool, delivery, stop)
    if spool.replayed_bytes:
        logger.info("delivering %d bytes that an earlier run left", spool.replayed_bytes)

    def not_ready() -> str | None:
        if worker.failed is not None:
            return f"delivery ended: {worker.failed}"
        return delivery.trouble

    app = Receiver(spool, telemetry, book, not_ready).app()
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_keep_alive=75, lifespan="off",
            timeout_graceful_shutdown=5,
        )
    )  # fmt: skip

    def on_signal(number: int, _: FrameType | None) -> None:
        logger.info("%s: draining", signal.Signals(number).name)
        server.should_exit = True

    worker.start()
    thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    thread.start()
    host, port = listener.getsockname()[:2]
    print(f"log_pipeline: http://{host}:{port}", flush=True)
    while thread.is_alive() and worker.is_alive():
        thread.join(0.5)
    if thread.is_alive():
        # Nobody delivers any more: better refused than acknowledged into a full disk.
        server.should_exit = True
        thread.join(DRAIN_SECONDS)
    if not drain(worker, spool, DRAIN_SECONDS):
        logger.warning("%d bytes stay in the spool", spool.backlog_bytes)
    stop.set()
    worker.join(DRAIN_SECONDS)
    spool.close()
    delivery.close()
    if worker.failed is not None:
        raise worker.failed
    return 0


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    # A named protocol: asyncio sets TCP_NODELAY only then, and answers would wait 40 ms without.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(1024)
    except (OSError, ValueError) as error:
        listener.close()
        raise ServerSetupError(
            "the pipeline cannot listen",
            where=address,
            expected="host:port, with a free port",
            got=str(error),
            next_command="stop what listens there, or choose another --listen",
        ) from error
    return listener
