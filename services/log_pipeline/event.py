"""``Event``: one shipped log line, and how ELK's documents are read into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from services.log_pipeline.lines import Oddities, clean_event

_MESSAGE = ("message", "log", "msg")
_AHEAD_SECONDS = 300.0
_BEHIND_SECONDS = 86_400.0
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Event:
    """``line`` is cleaned and without line ends; ``seen``: Unix seconds, by the line's own clock.

    source: what counters and templates are kept by: namespace/container, service, host or index
    """

    line: bytes
    source: str
    seen: float
    kubernetes: Mapping[str, Any] = field(default_factory=dict)

    def pack(self) -> bytes:
        """For the spool: JSON without newlines."""
        text = self.line.decode("utf-8", "surrogateescape")
        try:
            return orjson.dumps([text, self.source, self.seen, dict(self.kubernetes)])
        except orjson.JSONEncodeError:
            # A lone byte that is no UTF-8: the model reads U+FFFD in its place anyway.
            text = self.line.decode("utf-8", "replace")
            return orjson.dumps([text, self.source, self.seen, dict(self.kubernetes)])

    @classmethod
    def unpack(cls, packed: bytes) -> Event:
        text, source, seen, kubernetes = orjson.loads(packed)
        return cls(text.encode(), source, seen, kubernetes)


def read_document(document: Mapping[str, Any], index: str, now: float, odd: Oddities) -> Event:
    """An event of an ELK document; what it lacks is counted in ``odd``, and never fatal."""
    message = next((document[name] for name in _MESSAGE if name in document), None)
    if message is None:
        odd["no_message"] += 1
        message = ""
    elif not isinstance(message, str):
        odd["message_is_no_text"] += 1
        message = orjson.dumps(message).decode()
    kubernetes = _kubernetes(document)
    source = _source(document, kubernetes, index)
    return Event(clean_event(message, odd), source, _seen(document, now, odd), kubernetes)


def _seen(document: Mapping[str, Any], now: float, odd: Oddities) -> float:
    """Unix seconds of ``@timestamp``; the arrival where there is none to be believed."""
    stamp = document.get("@timestamp", document.get("timestamp"))
    if stamp is None:
        return now
    try:
        if isinstance(stamp, (int, float)) and not isinstance(stamp, bool):
            seen = float(stamp) / (1000.0 if stamp > 1e11 else 1.0)
        else:
            parsed = datetime.fromisoformat(str(stamp))
            seen = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        odd["bad_timestamp"] += 1
        return now
    if seen > now + _AHEAD_SECONDS:
        odd["clock_skew"] += 1
        return now
    if seen < now - _BEHIND_SECONDS:
        odd["late"] += 1
    return seen


def _kubernetes(document: Mapping[str, Any]) -> dict[str, Any]:
    """namespace, pod, container and node, as Filebeat, Fluent Bit and Vector name them."""
    found = document.get("kubernetes")
    nested = found if isinstance(found, Mapping) else {}
    names = {
        "namespace": ("namespace", "namespace_name", "pod_namespace"),
        "pod": ("pod", "pod_name"),
        "container": ("container", "container_name"),
        "node": ("node", "host", "pod_node_name"),
    }
    read = {}
    for name, spellings in names.items():
        for spelling in spellings:
            value = nested.get(spelling, document.get(f"kubernetes.{spelling}"))
            if isinstance(value, Mapping):
                value = value.get("name")
            if isinstance(value, str) and value:
                read[name] = value
                break
    return read


def _source(document: Mapping[str, Any], kubernetes: Mapping[str, str], index: str) -> str:
    if "namespace" in kubernetes:
        inside = kubernetes.get("container") or kubernetes.get("pod", "")
        return f"{kubernetes['namespace']}/{inside}"[:200]
    for name in ("service", "host", "hostname", "source"):
        value = document.get(name, document.get(f"{name}.name"))
        if isinstance(value, Mapping):
            value = value.get("name")
        if isinstance(value, str) and value:
            return value[:200]
    return index[:200] or UNKNOWN
