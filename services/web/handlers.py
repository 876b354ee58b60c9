"""An app's exceptions as answers: problem+json for each, a traceback for none."""

from __future__ import annotations

import logging

from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from contract.errors import InputError, PresageError, RequestRefusedError
from services.web.access_log import Exchange
from services.web.problem import reason_of, render_problem, status_of

_logger = logging.getLogger("presage.web")


def add_handlers(app: Starlette) -> None:
    """Before the app's first request."""
    app.add_exception_handler(PresageError, _on_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_surprise)


def problem_response(request: Request, error: PresageError) -> Response:
    """An answer for a handler that returns its errors."""
    exchange: Exchange = request.scope["presage"]
    exchange.reason = reason_of(error)
    if status_of(error) >= 500:
        _logger.warning("request %s: %s", exchange.request_id, error)
    status, headers, body = render_problem(
        error, request_id=exchange.request_id, chinese=exchange.chinese
    )
    response = Response(body, status)
    response.raw_headers = headers
    return response


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PresageError)
    return problem_response(request, error)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody reads it; nginx's status for the log."""
    request.scope["presage"].reason = "client_gone"
    return Response(status_code=499)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = {404: "not_found", 405: "method"}.get(error.status_code, "http")
    what = {
        404: "nothing is at this address",
        405: f"{request.method} is not for this address",
    }.get(error.status_code, str(error.detail))
    response = problem_response(
        request, RequestRefusedError(what, status=error.status_code, reason=reason)
    )
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    first = faults[0] if faults else {"loc": (), "msg": str(error)}
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return problem_response(
        request,
        InputError(
            f"the request does not fit{more}",
            where=".".join(str(part) for part in first["loc"]),
            got=str(first["msg"]),
        ),
    )


async def _on_surprise(request: Request, error: Exception) -> Response:
    """The traceback is logged by Protection, to which Starlette raises the error once more."""
    return problem_response(request, PresageError("it broke inside"))
