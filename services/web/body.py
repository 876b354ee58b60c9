"""Bodies as values: one JSON document, or one a line. Strict: no NaN literals, bounded depth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request

from contract.errors import RequestRefusedError
from services.web.limits import NDJSON

JSON = "application/json"
_LONGEST_LINE_BYTES = 32 << 20


def content_type_of(request: Request) -> str:
    """Without parameters, lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_content_type(request: Request, *allowed: str) -> str:
    """Raises RequestRefusedError (415). A browser's form can send none of the JSON types."""
    found = content_type_of(request)
    if found not in allowed:
        raise RequestRefusedError(
            "the body is of another type",
            status=415,
            reason="content_type",
            expected=" or ".join(allowed),
            got=repr(found[:80]),
        )
    return found


def parse_json(raw: bytes, where: str = "body") -> Any:
    """Raises RequestRefusedError (400)."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestRefusedError(
            "the body is no JSON",
            status=400,
            reason="body",
            where=where,
            expected="RFC 8259; null for a missing number",
            got=str(error),
        ) from error


async def read_json(request: Request) -> Any:
    """Raises RequestRefusedError: another type, no JSON, or what BodyReader raises."""
    require_content_type(request, JSON)
    return parse_json(await request.body())


async def read_json_lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """Number (from 1) and bytes of every line that is not blank, as they come.

    Raises RequestRefusedError: another type, a line without end, or what BodyReader raises.
    """
    require_content_type(request, NDJSON)
    number = 0
    rest = b""
    async for chunk in request.stream():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                yield number, line
        if len(rest) > _LONGEST_LINE_BYTES:
            raise RequestRefusedError(
                "a line is too long",
                status=413,
                reason="body_size",
                where=f"line {number + 1}",
                expected=f"at most {_LONGEST_LINE_BYTES} bytes",
            )
    if rest.strip():
        yield number + 1, rest
