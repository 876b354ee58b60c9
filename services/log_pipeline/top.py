"""``top``: new and surging anomalous templates, of a running ``serve`` or a file of anomalies."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson

from contract.errors import InputError, ServerAnswerError, ServerUnavailableError
from services.log_pipeline.templates import TemplateBook

_TIMEOUT_SECONDS = 10.0


def read_top(place: str, limit: int) -> list[dict[str, Any]]:
    """Rows of ``TemplateBook.top``, from a URL of ``serve`` or a file that its outlet wrote.

    Raises InputError, ServerUnavailableError, ServerAnswerError.
    """
    if not place.startswith(("http://", "https://")):
        return _from_file(Path(place), limit)
    url = place.rstrip("/") + "/top"
    try:
        answer = httpx.get(url, params={"limit": limit}, timeout=_TIMEOUT_SECONDS, trust_env=False)
        rows: list[dict[str, Any]] = answer.raise_for_status().json()
    except httpx.TransportError as error:
        raise ServerUnavailableError(
            "the pipeline cannot be reached",
            where=url,
            got=str(error) or repr(error),
            next_command="start it: python -m services log_pipeline serve",
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise ServerAnswerError("not a log pipeline", where=url, got=str(error)) from error
    return rows


def _from_file(path: Path, limit: int) -> list[dict[str, Any]]:
    """Its time is the time of its last line: an archive has new templates too."""
    records = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = orjson.loads(line)
                    seen = datetime.fromisoformat(record["@timestamp"]).timestamp()
                    records.append((seen, record))
                except (ValueError, LookupError, TypeError) as error:
                    raise InputError(
                        "not an anomaly",
                        where=f"{path}:{number}",
                        expected="a line that --json-lines wrote",
                        got=str(error),
                    ) from error
    except OSError as error:
        raise InputError(
            "anomalies cannot be read", where=str(path), got=error.strerror or str(error)
        ) from error
    records.sort(key=lambda pair: pair[0])
    now = records[-1][0] if records else 0.0
    book = TemplateBook(clock=lambda: now)
    for seen, record in records:
        template = book.add(
            record["source"],
            record["template"],
            1,
            example=record["message"].encode("utf-8", "replace"),
            score=record["score"],
            seen=seen,
        )
        template.id = record["template"]
    return book.top(limit)


def top_table(rows: list[dict[str, Any]]) -> str:
    """For a terminal: one template a line, and its example below."""
    if not rows:
        return "no anomalies"
    lines = [f"{'count':>9} {'5 min':>7} {'trend':>7}  {'first seen':<19} {'last seen':<19} source"]
    for row in rows:
        trend = "new" if row["new"] else f"{row['surge']:.1f}×" if row["surge"] else "-"
        lines.append(
            f"{row['count']:>9,} {row['recent']:>7,} {trend:>7}  "
            f"{_time(row['first_seen'])} {_time(row['last_seen'])} {row['source']}"
        )
        lines.append(f"{'':>26} {row['id']}  {row['example'][:150]}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
