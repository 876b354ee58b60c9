"""Where anomalies go: JSON lines, and back to Elasticsearch. Alerts are in ``alerting``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import orjson

from contract.errors import ConfigError, ServerAnswerError, ServerUnavailableError
from services.bounded_http import bounded_client
from services.log_pipeline.event import Event

_TIMEOUT_SECONDS = 30.0
_MOST_ITEMS = 1_000
_FULL = 429
_EXISTS = 409
"""An item that was delivered before a crash, and is there already."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """``id`` is the same whenever the same line is delivered again."""

    id: str
    event: Event
    score: float
    template: str
    model_version: str

    def record(self) -> dict[str, Any]:
        """As JSON can hold it, in ELK's field names."""
        record: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(self.event.seen, UTC).isoformat(),
            "message": self.event.line.decode("utf-8", "replace"),
            "source": self.event.source,
            "label": "anomaly",
            "score": self.score,
            "template": self.template,
            "model_version": self.model_version,
            "id": self.id,
        }
        if self.event.kubernetes:
            record["kubernetes"] = dict(self.event.kubernetes)
        return record


class Outlet(Protocol):
    """``deliver`` returns once everything is safe there, or raises and is called again."""

    name: str

    def deliver(self, anomalies: Sequence[Anomaly]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One line an anomaly; appended to a file, or written to a stream.

    After a crash lines may come twice, with one ``id``. A file that was rotated away is left to
    its new name: the next delivery opens the old path again.
    """

    name = "json_lines"

    def __init__(self, target: Path | IO[bytes]) -> None:
        self._path = target if isinstance(target, Path) else None
        self._stream: IO[bytes] | None = None if isinstance(target, Path) else target

    def deliver(self, anomalies: Sequence[Anomaly]) -> None:
        """Raises ServerUnavailableError: the file cannot be written now."""
        block = b"".join(
            orjson.dumps(anomaly.record(), option=orjson.OPT_APPEND_NEWLINE)
            for anomaly in anomalies
        )
        try:
            if self._path is None:
                assert self._stream is not None
                self._stream.write(block)
                self._stream.flush()
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                _end_half_line(file, self._path)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ServerUnavailableError(
                "anomalies cannot be written",
                where=str(self._path or "stdout"),
                got=error.strerror or str(error),
            ) from error

    def close(self) -> None:
        """A stream belongs to whoever gave it."""


def _end_half_line(file: IO[bytes], path: Path) -> None:
    """What a crash left half-written must not swallow the next line."""
    if file.tell():
        with path.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read(1) != b"\n":
                file.write(b"\n")


class Elasticsearch:
    """``create`` by ``_bulk``: ids are the anomalies' own, so what comes twice is there once.

    index: a name or data stream; its mapping is the owner's affair
    """

    name = "elasticsearch"

    def __init__(self, url: str, index: str = "presage-anomalies", api_key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("not a URL of Elasticsearch", expected="http(s)://…", got=repr(url))
        headers = {"Content-Type": "application/x-ndjson"}
        if api_key:
            headers["Authorization"] = f"ApiKey {api_key}"
        self.url = url.rstrip("/") + "/_bulk"
        self._index = index
        self._http = bounded_client(_TIMEOUT_SECONDS, headers=headers)
        self.refused = 0
        """Items that Elasticsearch will never take, such as those its mapping forbids."""

    def deliver(self, anomalies: Sequence[Anomaly]) -> None:
        """Raises ServerUnavailableError (away, or full), ServerAnswerError (no Elasticsearch)."""
        for start in range(0, len(anomalies), _MOST_ITEMS):
            self._send(anomalies[start : start + _MOST_ITEMS])

    def close(self) -> None:
        self._http.close()

    def _send(self, anomalies: Sequence[Anomaly]) -> None:
        parts = []
        for anomaly in anomalies:
            action = {"create": {"_index": self._index, "_id": anomaly.id}}
            parts += [orjson.dumps(action), orjson.dumps(anomaly.record())]
        try:
            answer = self._http.post(self.url, content=b"\n".join([*parts, b""]))
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                "Elasticsearch cannot be reached", where=self.url, got=str(error) or repr(error)
            ) from error
        if answer.status_code in (_FULL, 502, 503, 504):
            raise ServerUnavailableError(
                "Elasticsearch is busy", where=self.url, got=str(answer.status_code)
            )
        try:
            items = answer.raise_for_status().json()["items"]
            statuses = [next(iter(item.values()))["status"] for item in items]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, StopIteration) as error:
            raise ServerAnswerError(
                "Elasticsearch refuses the bulk request",
                where=self.url,
                expected="200 and items",
                got=f"{answer.status_code}: {answer.text[:200].strip()}",
            ) from error
        if len(statuses) != len(anomalies) or _FULL in statuses or max(statuses) >= 500:
            # All of it again: what is there already answers 409 then.
            raise ServerUnavailableError("Elasticsearch is busy", where=self.url, got="item 429")
        self.refused += sum(1 for s in statuses if 400 <= s < 500 and s != _EXISTS)
