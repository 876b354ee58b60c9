"""``Alertmanager``: posting alerts to its API, for every service that raises some."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from contract.errors import ServerAnswerError, ServerUnavailableError
from services.bounded_http import bounded_client

_TIMEOUT_SECONDS = 10.0


def alert(
    labels: dict[str, str],
    annotations: dict[str, str],
    *,
    starts_at: float,
    ends_at: float,
) -> dict[str, Any]:
    """One alert as ``/api/v2/alerts`` takes it; times in Unix seconds.

    labels: only what stays the same, because a label that changes is another alert
    """
    return {
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(starts_at),
        "endsAt": rfc3339(ends_at),
    }


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class Alertmanager:
    """Posts to ``<url>/api/v2/alerts``; close it. A user and password in the URL are not told.

    Example::

        Alertmanager("http://127.0.0.1:9093").post([alert({"alertname": "A"}, {}, …)])
    """

    name = "alertmanager"

    def __init__(self, url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/") + "/api/v2/alerts"
        self._shown = str(httpx.URL(self.url).copy_with(userinfo=b""))
        self._http = bounded_client(timeout_seconds)

    def post(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Raises ServerUnavailableError (nobody answers), ServerAnswerError (it refuses)."""
        try:
            answer = self._http.post(self.url, json=list(alerts))
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                "Alertmanager cannot be reached", where=self._shown, got=str(error) or repr(error)
            ) from error
        if not answer.is_success:
            raise ServerAnswerError(
                "Alertmanager refuses the alerts",
                where=self._shown,
                expected="200",
                got=f"{answer.status_code}: {answer.text[:200].strip()}",
            )

    def close(self) -> None:
        self._http.close()
