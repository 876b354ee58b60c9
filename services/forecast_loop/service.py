"""The loop as a service: it cycles in a thread, serves /metrics, and drains when told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType

from services.forecast_loop.config import LoopConfig
from services.forecast_loop.loop import ForecastLoop
from services.forecast_loop.server import MetricsServer

DRAIN_SECONDS = 8.0
"""A cycle that does not end by then is abandoned; what it was waiting for may never come."""


def serve(config: LoopConfig) -> int:
    """Until SIGTERM or SIGINT. Exit code 0. Raises ServerSetupError when it cannot listen."""
    logger = logging.getLogger("forecast_loop")
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        logger.info("%s: draining", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    loop = ForecastLoop(config, stop=stop, logger=logger)
    with MetricsServer(config.loop.address, loop.exposition, loop.not_ready) as server:
        host, port = server.address
        print(f"forecast_loop: http://{host}:{port}/metrics", flush=True)
        # A thread of its own: the main one must be free to hear signals while a cycle waits.
        cycles = threading.Thread(target=loop.run, name="cycles", daemon=True)
        cycles.start()
        while cycles.is_alive() and not stop.is_set():
            stop.wait(1.0)
        cycles.join(DRAIN_SECONDS)
        loop.save()
    if cycles.is_alive():
        logger.warning("a cycle was abandoned after %g s", DRAIN_SECONDS)
        _leave_now()
    loop.close()
    return 0


def run_once(config: LoopConfig) -> int:
    """One cycle, for cron. Its page goes to the outlets, or to stdout when there are none.

    Returns 0, or the exit code of the cycle's first error.
    """
    loop = ForecastLoop(config)
    try:
        loop.cycle()
    finally:
        loop.close()
    if config.loop.push_url is None and config.loop.remote_write_url is None:
        sys.stdout.buffer.write(loop.exposition.current().body)
        sys.stdout.flush()
    return loop.first_error.exit_code if loop.first_error is not None else 0


def _leave_now() -> None:
    """Exit 0 without waiting for threads that wait for a server; all that matters is saved."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
