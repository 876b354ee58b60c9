"""Triton's HTTP control plane (health, load, config, one inference) with the stdlib alone."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote

from contract.errors import ServerAnswerError, ServerUnavailableError


class HttpControl:
    """``address`` is ``host:port``. Every call opens its own connection."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Any:
        """One request; the parsed JSON answer, or None when empty.

        Raises:
            ServerUnavailableError: nobody answers.
            ServerAnswerError: HTTP status other than 200; ``got`` holds Triton's reason.
        """
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnavailableError(
                "tritonserver does not answer", where=self.address + path, got=str(error)
            ) from error
        finally:
            connection.close()
        try:
            answer = json.loads(raw) if raw else None
        except ValueError:
            answer = raw.decode("utf-8", "replace")
        if response.status != 200:
            reason = answer.get("error", "") if isinstance(answer, dict) else str(answer or "")
            raise ServerAnswerError(
                f"tritonserver refuses (HTTP {response.status})",
                where=self.address + path,
                got=reason,
            )
        return answer

    def is_live(self) -> bool:
        try:
            self.call("GET", "/v2/health/live", timeout=2.0)
        except (ServerUnavailableError, ServerAnswerError):
            return False
        return True

    def load(self, name: str, *, timeout: float = 120.0) -> None:
        self.call("POST", f"/v2/repository/models/{quote(name)}/load", {}, timeout=timeout)

    def unload(self, name: str) -> None:
        self.call("POST", f"/v2/repository/models/{quote(name)}/unload", {}, timeout=60.0)

    def index(self) -> list[dict[str, str]]:
        """Triton's own list: name, version, state, reason."""
        answer: list[dict[str, str]] = self.call("POST", "/v2/repository/index", {})
        return answer

    def config(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", f"/v2/models/{quote(name)}/config")
        return answer

    def infer(self, name: str, inputs: list[dict[str, Any]], *, timeout: float = 30.0) -> Any:
        return self.call(
            "POST", f"/v2/models/{quote(name)}/infer", {"inputs": inputs}, timeout=timeout
        )
