"""``PageSettings``: what a gateway tells its page."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_LOG_BYTES = 20 << 20


@dataclass(frozen=True)
class PageSettings:
    """What the page offers and what it refuses before sending it.

    tabs: "diagnose", "logs", "forecast", "models"; None: those whose API the app has
    largest_log_bytes: of one log, before it is put into JSON
    lines_a_request: log lines sent at once; more are sent in several requests
    prometheus: names of the Prometheus servers that ``/v1/forecast/query`` knows, the default first
    """

    tabs: tuple[str, ...] | None = None
    largest_log_bytes: int = LARGEST_LOG_BYTES
    lines_a_request: int = 10_000
    prometheus: tuple[str, ...] = ()
