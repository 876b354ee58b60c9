"""``Pushgateway``: one PUT a cycle replaces everything this job said before."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import httpx

from contract.errors import ServerAnswerError, ServerUnavailableError
from services.bounded_http import bounded_client
from services.forecast_loop.exposition import CONTENT_TYPE, Page

JOB = "forecast_loop"
_TIMEOUT_SECONDS = 30.0


class Pushgateway:
    """Pushgateway never forgets: rules guard on the timestamps that are among the metrics.

    grouping: labels of the group besides the job; they overwrite labels of the same name
    """

    name = "pushgateway"

    def __init__(
        self,
        url: str,
        *,
        job: str = JOB,
        grouping: Mapping[str, str] | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self.url = url.rstrip("/") + "/metrics" + _path({"job": job, **(grouping or {})})
        self._http = bounded_client(timeout_seconds)

    def close(self) -> None:
        self._http.close()

    def push(self, page: Page) -> None:
        """Raises ServerUnavailableError (away), ServerAnswerError (refused, in its own words)."""
        try:
            answer = self._http.put(
                self.url, content=page.body, headers={"Content-Type": CONTENT_TYPE}
            )
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                "Pushgateway cannot be reached", where=self.url, got=str(error) or repr(error)
            ) from error
        if not answer.is_success:
            raise ServerAnswerError(
                "Pushgateway refuses the push",
                where=self.url,
                expected="200",
                got=f"{answer.status_code}: {answer.text[:200].strip()}",
            )


def _path(grouping: Mapping[str, str]) -> str:
    """``/job/<job>/<label>/<value>…``; a value that a path cannot hold goes as base64."""
    path = ""
    for label, value in grouping.items():
        if value and all(char.isascii() and (char.isalnum() or char in "-_.") for char in value):
            path += f"/{label}/{value}"
            continue
        # Pushgateway's own rule: an empty value is one padding character.
        packed = base64.urlsafe_b64encode(value.encode()).decode() or "="
        path += f"/{label}@base64/{packed}"
    return path
