"""Elasticsearch's ``_bulk``: a body of NDJSON → events, and the answer its clients expect.

Source: https://www.elastic.co/guide/en/elasticsearch/reference/8.15/docs-bulk.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from services.log_pipeline.event import Event, read_document
from services.log_pipeline.lines import Oddities

_ACTIONS = ("index", "create", "update", "delete")
_SHARDS = {"total": 1, "successful": 1, "failed": 0}


class BulkError(Exception):
    """The whole request is refused, as Elasticsearch does; the message is its ``reason``."""


@dataclass(frozen=True)
class Bulk:
    """items: one answer an action, in order; events: of the items that are kept."""

    events: list[Event]
    items: list[dict[str, Any]]
    has_errors: bool

    def answer(self, took_milliseconds: int) -> bytes:
        return orjson.dumps(
            {"took": took_milliseconds, "errors": self.has_errors, "items": self.items}
        )


def read_bulk(body: bytes, index: str, now: float, odd: Oddities, first_number: int) -> Bulk:
    """A bulk body. An item that is bad fails alone; see Raises for what spoils the request.

    index: from the path, for items without one
    first_number: of the items, for their ``_id`` and ``_seq_no``

    Raises BulkError: an action line that is none, or an end without a newline.
    """
    if not body.strip():
        raise BulkError("request body is required")
    if not body.endswith(b"\n"):
        odd["half_written"] += 1
        raise BulkError("The bulk request must be terminated by a newline [\\n]")
    lines = body.split(b"\n")
    events: list[Event] = []
    items: list[dict[str, Any]] = []
    has_errors = False
    row = 0
    while row < len(lines) - 1:
        line = lines[row]
        row += 1
        if not line.strip():
            continue
        action, meta = _action(line, row)
        where = str(meta.get("_index") or index)
        name = str(meta.get("_id") or f"presage-{first_number + len(items)}")
        if action != "delete":
            source = lines[row] if row < len(lines) - 1 else b""
            row += 1
        try:
            if action in ("update", "delete"):
                raise ValueError(f"{action} is not supported: this endpoint only reads logs")
            document = orjson.loads(source)
            if not isinstance(document, dict):
                raise ValueError("expected an object")
        except ValueError as error:
            odd["bad_item"] += 1
            has_errors = True
            items.append({action: _failed(where, name, action, str(error))})
            continue
        events.append(read_document(document, where, now, odd))
        items.append({action: _created(where, name, first_number + len(items))})
    return Bulk(events, items, has_errors)


def read_json_lines(body: bytes, now: float, odd: Oddities) -> tuple[list[Event], list[str]]:
    """Plain JSON lines, or plain text lines: events, and what is wrong with those that are none."""
    events: list[Event] = []
    faults: list[str] = []
    for number, raw in enumerate(body.split(b"\n"), 1):
        line = raw
        if not line.strip():
            continue
        if line.endswith(b"\r"):
            odd["crlf"] += 1
            line = line[:-1]
        if not line.lstrip().startswith(b"{"):
            text = line.decode("utf-8", "replace")
            if "\ufffd" in text and text.encode() != line:
                odd["invalid_utf8"] += 1
            document: Any = {"message": text}
        else:
            try:
                document = orjson.loads(line)
            except ValueError as error:
                odd["bad_item"] += 1
                faults.append(f"line {number}: {error}")
                continue
        events.append(read_document(document, "", now, odd))
    return events, faults


def error_answer(kind: str, reason: str, status: int) -> bytes:
    """Elasticsearch's shape of an error."""
    cause = {"type": kind, "reason": reason}
    return orjson.dumps({"error": {"root_cause": [cause], **cause}, "status": status})


def _action(line: bytes, row: int) -> tuple[str, dict[str, Any]]:
    try:
        document = orjson.loads(line)
    except ValueError as error:
        raise BulkError(f"Malformed action/metadata line [{row}]: {error}") from error
    if not isinstance(document, dict) or len(document) != 1:
        raise BulkError(f"Malformed action/metadata line [{row}], expected one action in an object")
    ((action, meta),) = document.items()
    if action not in _ACTIONS or not isinstance(meta, dict):
        raise BulkError(
            f"Malformed action/metadata line [{row}], expected one of {', '.join(_ACTIONS)} "
            f"but found [{str(action)[:50]}]"
        )
    return action, meta


def _created(index: str, name: str, number: int) -> dict[str, Any]:
    return {
        "_index": index,
        "_id": name,
        "_version": 1,
        "result": "created",
        "_shards": _SHARDS,
        "_seq_no": number,
        "_primary_term": 1,
        "status": 201,
    }


def _failed(index: str, name: str, action: str, reason: str) -> dict[str, Any]:
    kind = "document_parsing_exception"
    if action in ("update", "delete"):
        kind = "illegal_argument_exception"
    return {
        "_index": index,
        "_id": name,
        "status": 400,
        "error": {"type": kind, "reason": f"failed to parse: {reason}"},
    }
