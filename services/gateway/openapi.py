"""OpenAPI from the bodies and answers themselves: schemas, real examples, problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from services.web.body import JSON
from services.web.limits import NDJSON
from services.web.problem import CONTENT_TYPE as PROBLEM

VERSION = "1"
_REFERENCE = "#/components/schemas/{model}"
_SECURITY = "token"
_PROBLEMS = {
    400: "The body is no JSON, or the timeout no number.",
    401: "No token, or an unknown one.",
    403: "The token is for other APIs.",
    404: "The server has no such model.",
    408: "The body came too slowly.",
    413: "The body, or the batch in it, is too large.",
    415: "The body is of another type or encoding.",
    422: "The input makes no sense; `detail` says where.",
    429: "Too fast, or the queue is full. Retry-After says when.",
    431: "Headers too large.",
    500: "It broke inside.",
    502: "A server behind answered nonsense.",
    503: "The model server is away, or too much at once. Retry-After says when.",
    504: "No answer within the deadline (X-Request-Timeout, or the gateway's).",
}


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    what: str | None = None
    where: str | None = None
    expected: str | None = None
    got: str | None = None
    next: str | None = None
    request_id: str | None = None


class Schemas:
    """Collects the schemas of one document; ``describe`` gives what a route is added with."""

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = {}
        self._own(Problem)

    def describe(
        self,
        *,
        body: type[BaseModel] | None = None,
        body_examples: Mapping[str, Any] | None = None,
        answer: Any,
        answer_example: Any,
        stream: tuple[type[BaseModel], str, str] | None = None,
        problems: Sequence[int] = tuple(_PROBLEMS),
    ) -> dict[str, Any]:
        """stream: body of one NDJSON line, an example of a request, and of its answer."""
        good = {"schema": self._schema(answer), "example": answer_example}
        answers: dict[str, Any] = {JSON: good}
        if stream is not None:
            answers[NDJSON] = {"schema": {"type": "string"}, "example": stream[2]}
        responses: dict[int | str, dict[str, Any]] = {
            200: {"description": "The answer.", "content": answers}
        }
        for status in problems:
            responses[status] = {
                "description": _PROBLEMS[status],
                "content": {PROBLEM: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
            }
        extra: dict[str, Any] = {"security": [{_SECURITY: []}, {}]}
        if body is not None:
            content: dict[str, Any] = {
                JSON: {
                    "schema": self._schema(body),
                    "examples": {n: {"value": v} for n, v in (body_examples or {}).items()},
                }
            }
            if stream is not None:
                content[NDJSON] = {"schema": {"type": "string"}, "example": stream[1]}
                self._own(stream[0])
            extra["requestBody"] = {"required": True, "content": content}
        return {"openapi_extra": extra, "responses": responses, "response_model": None}

    def install(self, app: FastAPI, *, description: str) -> None:
        """Make ``app.openapi`` write the document, once all routes are there."""

        def document() -> dict[str, Any]:
            if app.openapi_schema is None:
                made = get_openapi(
                    title=app.title, version=VERSION, description=description, routes=app.routes
                )
                components = made.setdefault("components", {})
                # FastAPI's own shape of a validation error is never answered here.
                components["schemas"] = dict(sorted(self._definitions.items()))
                components["securitySchemes"] = {
                    _SECURITY: {"type": "http", "scheme": "bearer", "description": "See tokens."}
                }
                app.openapi_schema = made
            return app.openapi_schema

        app.openapi = document  # type: ignore[method-assign]

    def _schema(self, kind: Any) -> dict[str, Any]:
        """A reference to a model's schema; a schema as it is."""
        if isinstance(kind, dict):
            return kind
        self._own(kind)
        return {"$ref": _REFERENCE.format(model=kind.__name__)}

    def array_of(self, kind: type[BaseModel]) -> dict[str, Any]:
        return {"type": "array", "items": self._schema(kind)}

    def _own(self, kind: type[BaseModel]) -> None:
        schema = kind.model_json_schema(ref_template=_REFERENCE)
        self._definitions |= schema.pop("$defs", {})
        self._definitions[kind.__name__] = schema
