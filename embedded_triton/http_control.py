"""Triton's HTTP control plane (health, load, config, one inference) with the stdlib alone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from contract.errors import (
    DeadlineExceededError,
    ServerAnswerError,
    ServerError,
    ServerUnavailableError,
)


class HttpControl:
    """``address`` is ``host:port``. Every call opens its own connection."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Any:
        """One request; the parsed JSON answer, or None when empty.

        Raises:
            DeadlineExceededError: no answer within ``timeout`` seconds.
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
        except TimeoutError as error:
            raise DeadlineExceededError(
                "tritonserver does not answer in time",
                where=self.address + path,
                got=f"nothing within {timeout:g} s",
            ) from error
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
        except ServerError:
            return False
        return True

    def load(self, name: str, *, timeout: float = 120.0) -> None:
        self.call("POST", f"/v2/repository/models/{quote(name)}/load", {}, timeout=timeout)

    def unload(self, name: str, *, timeout: float = 60.0) -> None:
        self.call("POST", f"/v2/repository/models/{quote(name)}/unload", {}, timeout=timeout)

    def index(self, *, timeout: float = 10.0) -> list[dict[str, str]]:
        """Triton's own list: name, version, state, reason."""
        path = "/v2/repository/index"
        answer: list[dict[str, str]] = self.call("POST", path, {}, timeout=timeout)
        return answer

    def config(self, name: str, *, timeout: float = 10.0) -> dict[str, Any]:
        path = f"/v2/models/{quote(name)}/config"
        answer: dict[str, Any] = self.call("GET", path, timeout=timeout)
        return answer

    def progress(self, name: str, ends: Sequence[str] = ("success", "fail")) -> int:
        """Requests of a model that came to one of these ends, in all its versions."""
        answer = self.call("GET", f"/v2/models/{quote(name)}/stats", timeout=2.0)
        return sum(
            int(row["inference_stats"][kind]["count"])
            for row in answer["model_stats"]
            for kind in ends
        )

    def infer(self, name: str, inputs: list[dict[str, Any]], *, timeout: float = 30.0) -> Any:
        return self.call(
            "POST", f"/v2/models/{quote(name)}/infer", {"inputs": inputs}, timeout=timeout
        )
