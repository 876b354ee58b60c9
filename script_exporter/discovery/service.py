"""``Discovery``: asks the CMDB at an interval and serves what it answered last.

``/sd`` for Prometheus' http_sd, ``/inventory`` for Ansible, ``/metrics``. Without any answer
``/sd`` is 503: Prometheus keeps the targets it has then, as it would not with an empty list.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus

from script_exporter.discovery.cmdb import Cmdb, write_file
from script_exporter.discovery.host import Host
from script_exporter.discovery.settings import DiscoverySettings
from script_exporter.discovery.targets import Target, assign, inventory, service_discovery
from script_exporter.exposition import CONTENT_TYPE, Page, family
from script_exporter.server import Answer
from script_exporter.server import Page as HttpPage
from script_exporter.tokens import Tokens, load_tokens

_LOG = logging.getLogger("script_exporter.discovery")


class Discovery:
    """Thread-safe. ``refresh`` asks once; ``run`` until ``stop`` is set."""

    def __init__(self, settings: DiscoverySettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._told = ""
        self._file_failures = 0
        self._assigned: tuple[tuple[Host, ...], list[Target]] | None = None
        token_file = settings.output.token_file
        self._tokens: Tokens | None = load_tokens(str(token_file)) if token_file else None
        self.cmdb = Cmdb(settings.cmdb, settings.state_file)

    @property
    def targets(self) -> list[Target] | None:
        """None where the CMDB has never answered."""
        hosts, assigned = self.cmdb.hosts, self._assigned
        if hosts is None:
            return None
        if assigned is None or assigned[0] is not hosts:
            assigned = self._assigned = (hosts, assign(hosts, self._settings))
        return assigned[1]

    def refresh(self, *, accept_loss: bool = False) -> bool:
        """Whether the CMDB's answer was taken; files are written of the last good one."""
        with self._lock:
            taken = self.cmdb.refresh(accept_loss=accept_loss)
            problem = self.cmdb.problem
            if problem and problem != self._told:
                _LOG.warning("%s; the last good answer holds", problem)
            elif self._told and not problem:
                _LOG.info("the CMDB answers again")
            self._told = problem
            self._write()
            return taken

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.refresh()
            stop.wait(self._settings.cmdb.interval)

    def service_discovery(self) -> str | None:
        targets = self.targets
        return None if targets is None else service_discovery(targets, self._settings.output.port)

    def inventory(self) -> str | None:
        targets = self.targets
        return None if targets is None else inventory(targets, self._settings.output.port)

    def pages(self) -> dict[tuple[str, str], HttpPage]:
        def page(kind: str, text: Callable[[], str | None]) -> HttpPage:
            def shown(headers: Mapping[str, str]) -> Answer:
                if self._tokens is not None and not self._tokens.accept_headers(headers):
                    return Answer(b"expected a bearer token\n", status=HTTPStatus.UNAUTHORIZED)
                found = text()
                if found is None:
                    return Answer(
                        b"the CMDB has not answered yet\n", status=HTTPStatus.SERVICE_UNAVAILABLE
                    )
                return Answer(found.encode(), kind)

            return shown

        return {
            ("GET", "/sd"): page("application/json", self.service_discovery),
            ("GET", "/inventory"): page("application/yaml", self.inventory),
            ("GET", "/metrics"): page(CONTENT_TYPE, self.metrics),
            ("GET", "/-/healthy"): lambda _: Answer(b"ok\n"),
        }

    def metrics(self) -> str:
        cmdb = self.cmdb
        targets = self.targets or []
        cards = Counter(card for target in targets for card in target.cards or ("other",))
        collectors = Counter(name for target in targets for name in target.collectors)
        page = Page()
        page.add(
            [
                family(
                    "cmdb_discovery_requests_total",
                    "counter",
                    "Requests by their end: ok, unreachable, answer (not understood), shrunk (not "
                    "believed).",
                    [
                        ({"result": result}, float(cmdb.requests[result]))
                        for result in ("ok", "unreachable", "answer", "shrunk")
                    ],
                ),
                family(
                    "cmdb_discovery_last_success_timestamp_seconds",
                    "gauge",
                    "When the answer that holds was given.",
                    [] if cmdb.answered_at is None else [({}, cmdb.answered_at)],
                ),
                family(
                    "cmdb_discovery_answer_age_seconds",
                    "gauge",
                    "Age of the answer that holds.",
                    [] if cmdb.age_seconds is None else [({}, cmdb.age_seconds)],
                ),
                family(
                    "cmdb_discovery_hosts",
                    "gauge",
                    "Hosts of that answer: assigned, unassigned (no collector), skipped (no name, "
                    "or twice).",
                    [
                        ({"state": "assigned"}, float(len(targets))),
                        ({"state": "unassigned"}, float(len(cmdb.hosts or ()) - len(targets))),
                        ({"state": "skipped"}, float(cmdb.skipped)),
                    ],
                ),
                family(
                    "cmdb_discovery_card_hosts",
                    "gauge",
                    "Hosts by card.",
                    [({"card": card}, float(count)) for card, count in sorted(cards.items())],
                ),
                family(
                    "cmdb_discovery_collector_hosts",
                    "gauge",
                    "Hosts by collector.",
                    [({"name": name}, float(count)) for name, count in sorted(collectors.items())],
                ),
                family(
                    "cmdb_discovery_file_failures_total",
                    "counter",
                    "Files that could not be written.",
                    [({}, float(self._file_failures))],
                ),
            ]
        )
        return page.text()

    def _write(self) -> None:
        output = self._settings.output
        for path, text in (
            (output.file_sd, self.service_discovery()),
            (output.inventory, self.inventory()),
        ):
            if path is None or text is None:
                continue
            try:
                if not path.is_file() or path.read_text("utf-8") != text:
                    write_file(path, text)
            except (OSError, UnicodeDecodeError) as error:
                self._file_failures += 1
                _LOG.error("%s: %s", path, error)
