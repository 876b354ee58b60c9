"""``Exporter``: configuration, schedule, store and pages together, until it is told to stop."""

from __future__ import annotations

import html
import json
import logging
import signal
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path

from contract.errors import ConfigError, PresageError
from script_exporter.config import Collector, ExporterConfig, load_config
from script_exporter.exposition import CONTENT_TYPE, Family, family
from script_exporter.process import RunResult
from script_exporter.schedule import Schedule
from script_exporter.server import Answer, Page, PageServer, parse_address
from script_exporter.store import Store
from script_exporter.tokens import Tokens, load_tokens

_LOG = logging.getLogger("script_exporter")
_STOP_SECONDS = 5.0
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}


class Exporter:
    """``reload()`` takes the file anew; one that is refused changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reloading = threading.Lock()
        self._told: dict[str, str] = {}
        self._failed_reloads = 0
        self.config = load_config(path)
        self._read_tokens, self._reload_tokens = _tokens(self.config)
        self._store = Store(self.config.file.global_.max_series)
        self._schedule = Schedule(self._finished, self._store.skipped)
        self._reloaded_at = time.time()
        self._last_reload_good = True
        self._take(self.config)

    def start(self) -> None:
        self._schedule.start()

    def stop(self) -> None:
        if not self._schedule.stop(_STOP_SECONDS):
            _LOG.warning("%d scripts hang in the kernel and stay behind", self._schedule.running)

    def reload(self) -> None:
        """Raises ConfigError; the old configuration holds then."""
        with self._reloading:
            try:
                config = load_config(self._path)
                tokens = _tokens(config)
            except PresageError as error:
                self._last_reload_good = False
                self._failed_reloads += 1
                _LOG.error("reload refused, the old configuration holds: %s", error)
                raise
            self.config = config
            self._read_tokens, self._reload_tokens = tokens
            self._take(config)
            self._last_reload_good = True
            self._reloaded_at = time.time()
            for warning in config.warnings:
                _LOG.warning("%s: %s", config.path, warning)
            _LOG.info("reloaded: %d collectors", len(config.collectors))

    def pages(self) -> dict[tuple[str, str], Page]:
        return {
            ("GET", "/"): self._guarded(self._index),
            ("GET", "/metrics"): self._guarded(self._metrics),
            ("GET", "/health"): self._guarded(self._health),
            ("GET", "/-/healthy"): lambda _: Answer(b"ok\n"),
            ("POST", "/-/reload"): self._reload_page,
            ("PUT", "/-/reload"): self._reload_page,
        }

    def _take(self, config: ExporterConfig) -> None:
        limits = config.file.global_
        self._store.configure(config.collectors, limits.max_series)
        self._schedule.configure(config.collectors, limits.max_concurrent, config.state_dir)

    def _finished(self, collector: Collector, result: RunResult) -> None:
        problem = self._store.finished(collector, result)
        # Each problem once, and its end: a script that fails every minute fills no log.
        if problem == self._told.get(collector.key, ""):
            return
        self._told[collector.key] = problem
        if problem:
            _LOG.warning("%s: %s: %s", collector.key, collector.settings.script_path, problem)
        else:
            _LOG.info("%s: well again", collector.key)

    def _guarded(self, page: Page) -> Page:
        def guarded(headers: Mapping[str, str]) -> Answer:
            tokens = self._read_tokens
            if tokens is not None and not tokens.accept_headers(headers):
                return Answer(b"expected a bearer token\n", status=HTTPStatus.UNAUTHORIZED)
            return page(headers)

        return guarded

    def _metrics(self, _: Mapping[str, str]) -> Answer:
        return Answer(self._store.page(self._families()).encode(), CONTENT_TYPE)

    def _health(self, _: Mapping[str, str]) -> Answer:
        # 200 whatever the health is, as in the Go program.
        text = json.dumps(self._store.health(), ensure_ascii=False)
        return Answer(text.encode(), "application/json")

    def _reload_page(self, headers: Mapping[str, str]) -> Answer:
        tokens = self._reload_tokens
        if tokens is None:
            text = b"no web.reload_token_file is set: send SIGHUP instead\n"
            return Answer(text, status=HTTPStatus.FORBIDDEN)
        if not tokens.accept_headers(headers):
            return Answer(b"expected a bearer token\n", status=HTTPStatus.UNAUTHORIZED)
        try:
            self.reload()
        except PresageError as error:
            return Answer(f"{error}\n".encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)
        return Answer(b"reloaded\n")

    def _index(self, _: Mapping[str, str]) -> Answer:
        health = self._store.health()
        details = health["details"]
        assert isinstance(details, dict)
        statuses = health["collectors"]
        assert isinstance(statuses, dict)
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(str(cell))}</td>"
                for cell in (
                    key,
                    statuses[key],
                    one["series"],
                    "" if one["output_age_seconds"] is None else one["output_age_seconds"],
                    one["problem"],
                    one["stderr_last_line"],
                )
            )
            + "</tr>\n"
            for key, one in details.items()
        )
        return Answer(_INDEX.replace("ROWS", rows).encode(), "text/html; charset=utf-8")

    def _families(self) -> list[Family]:
        def gauge(name: str, text: str, value: float) -> Family:
            return family(f"script_exporter_{name}", "gauge", text, [({}, value)])

        return [
            gauge("running", "Scripts that run now.", float(self._schedule.running)),
            gauge("waiting", "Scripts that are due and wait.", float(self._schedule.waiting)),
            gauge(
                "config_last_reload_successful",
                "0 while a configuration was refused and an older one holds.",
                float(self._last_reload_good),
            ),
            gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration was taken.",
                self._reloaded_at,
            ),
            family(
                "script_exporter_config_reload_failures_total",
                "counter",
                "Configurations that were refused.",
                [({}, float(self._failed_reloads))],
            ),
        ]


def serve(path: Path, listen: str | None) -> int:
    """Until SIGTERM or SIGINT; SIGHUP reloads. Exit code 0.

    listen: host:port, over ``web.listen_address`` and ``global.http_port`` of the file

    Raises ConfigError, ServerSetupError.
    """
    exporter = Exporter(path)
    _start_logging(exporter.config)
    wake = threading.Event()
    asked: list[int] = []

    def on_signal(number: int, _: object) -> None:
        asked.append(number)
        wake.set()

    for awaited in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(awaited, on_signal)
    address = _address(exporter.config, listen)
    with PageServer(address, exporter.pages(), exporter.config.http_timeout_seconds) as server:
        exporter.start()
        print(f"script_exporter: {server.url}/metrics", flush=True)
        while True:
            wake.wait()
            wake.clear()
            while asked:
                number = asked.pop(0)
                if number != signal.SIGHUP:
                    exporter.stop()
                    return 0
                try:
                    exporter.reload()
                except PresageError:
                    continue


def _address(config: ExporterConfig, listen: str | None) -> tuple[str, int]:
    given = listen or config.file.web.listen_address
    try:
        if given:
            return parse_address(given)
    except ValueError as error:
        raise ConfigError("no address to listen on", where=str(given), got=str(error)) from error
    return "127.0.0.1", config.file.global_.http_port or 5535


def _tokens(config: ExporterConfig) -> tuple[Tokens | None, Tokens | None]:
    web = config.file.web
    return load_tokens(web.token_file), load_tokens(web.reload_token_file)


def _start_logging(config: ExporterConfig) -> None:
    """Into ``log_file``, turned over as the Go program does; to stderr where that cannot be."""
    settings = config.file.global_
    handler: logging.Handler = logging.StreamHandler()
    trouble = ""
    if settings.log_file:
        hours = settings.log_rotation_time or 24
        days = settings.log_max_age or 7
        try:
            Path(settings.log_file).parent.mkdir(parents=True, exist_ok=True)
            handler = TimedRotatingFileHandler(
                settings.log_file,
                when="H",
                interval=hours,
                backupCount=max(days * 24 // hours, 1),
                encoding="utf-8",
            )
        except OSError as error:
            trouble = f"{settings.log_file}: {error.strerror}; logging to stderr"
    logging.basicConfig(
        handlers=[handler],
        level=_LEVELS[config.log_level],
        format="%(asctime)s %(levelname)s %(message)s",
        force=True,
    )
    for warning in (*config.warnings, *([trouble] if trouble else [])):
        _LOG.warning("%s: %s", config.path, warning)


_INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>script_exporter</title>
<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}</style>
</head><body><h1>script_exporter</h1>
<p><a href="/metrics">/metrics</a> · <a href="/health">/health</a></p>
<table><thead><tr><th>collector</th><th>status</th><th>series</th><th>age (s)</th><th>problem</th>
<th>last line of stderr</th></tr></thead><tbody>
ROWS</tbody></table></body></html>
"""
