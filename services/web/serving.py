"""``serve``: protected apps on their ports, in one event loop, until SIGTERM drains them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import uvicorn

from contract.errors import ConfigError, ServerSetupError
from services.web.protection import Protection
from services.web.protocol import guarded
from services.web.settings import WebSettings

_BACKLOG = 1024
_THREADS_END_SECONDS = 1.0


@dataclass(frozen=True)
class Served:
    """One app on one port; port 0 takes a free one."""

    app: Protection
    port: int


def serve(
    served: Sequence[Served],
    settings: WebSettings,
    *,
    name: str,
    listening: Callable[[dict[str, str]], None] | None = None,
    closing: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Until SIGTERM or SIGINT: no new connections, /readyz says no, what is being answered gets
    ``drain_seconds``. Says ``<name>: <api> http://host:port`` on stderr once it listens (stdout is
    the access log's). Exit code 0.

    listening: told the URLs by API. closing: awaited at the end, in the event loop.

    Raises ConfigError (exposure, TLS files), ServerSetupError (a port is taken).
    """
    import uvloop

    settings.check_exposure()
    context = _tls(settings)
    listeners = [listen(settings.host, one.port) for one in served]
    scheme = "http" if context is None else "https"
    urls: dict[str, str] = {}
    for one, listener in zip(served, listeners, strict=True):
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        urls[one.app.api] = f"{scheme}://{host}:{listener.getsockname()[1]}"
        print(f"{name}: {one.app.api} {urls[one.app.api]}", file=sys.stderr, flush=True)
    if listening is not None:
        listening(urls)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(served, listeners, settings, context, closing))
        _leave_waiting_threads()
    return 0


async def _run(
    served: Sequence[Served],
    listeners: Sequence[socket.socket],
    settings: WebSettings,
    context: ssl.SSLContext | None,
    closing: Callable[[], Awaitable[None]] | None,
) -> None:
    servers = [_Server(_config(one.app, settings, context)) for one in served]
    logger = logging.getLogger("presage.web")

    def stop(number: signal.Signals) -> None:
        if servers[0].should_exit:
            # Told twice: do not wait for anybody.
            for server in servers:
                server.force_exit = True
            return
        logger.info("%s: draining", number.name)
        for one, server in zip(served, servers, strict=True):
            one.app.draining = True
            server.should_exit = True

    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.gather(
            *(
                server.serve(sockets=[listener])
                for server, listener in zip(servers, listeners, strict=True)
            )
        )
    finally:
        if closing is not None:
            await closing()
        executor.shutdown(wait=False, cancel_futures=True)


def _leave_waiting_threads() -> None:
    """Exit 0 without threads that wait for a server; the interpreter would wait for them, however
    long after the drain. Who asked was told.
    """
    until = time.monotonic() + _THREADS_END_SECONDS
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    left = sum(thread.is_alive() for thread in others)
    if left and threading.current_thread() is threading.main_thread():
        logging.getLogger("presage.web").warning("%d threads still wait for a server", left)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class _Server(uvicorn.Server):
    """Signals are heard once for all servers of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(
    app: Protection, settings: WebSettings, context: ssl.SSLContext | None
) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=guarded(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=int(max(1, settings.drain_seconds)),
        ssl_context_factory=None if context is None else (lambda _config, _default: context),
    )
    config.load()
    return config


def listen(host: str, port: int) -> socket.socket:
    """Raises ServerSetupError: the address is taken, or none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A named protocol: asyncio sets TCP_NODELAY only then, and answers would wait 40 ms without.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ServerSetupError(
            "the service cannot listen",
            where=f"{host}:{port}",
            got=error.strerror or str(error),
            next_command="stop what listens there, or choose another port",
        ) from error
    listener.setblocking(False)
    return listener


def _tls(settings: WebSettings) -> ssl.SSLContext | None:
    """Raises ConfigError: certificate or key cannot be used."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "the TLS certificate or key cannot be used",
            where=f"{settings.tls_certificate_file}, {settings.tls_key_file}",
            got=str(error),
        ) from error
    return context


def start_logging() -> None:
    """Problems to stderr; stdout is the access log's."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
