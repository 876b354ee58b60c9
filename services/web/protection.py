"""``protect``: an app behind tokens, limits, request ids, problem+json, access log and metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import PresageError, RequestRefusedError
from services.web.access_log import AccessLog, Exchange, request_id_of
from services.web.answer import Answer, SlowReaderError
from services.web.handlers import add_handlers
from services.web.limits import NDJSON, BodyReader, Held, InFlight, RateLimit, body_too_large
from services.web.limits import check_headers as check_header_size
from services.web.problem import scrub, wants_chinese
from services.web.settings import WebSettings
from services.web.telemetry import CONTENT_TYPE, WebTelemetry
from services.web.tokens import TokenBook

Readiness = Callable[[], Awaitable[str | None]]
"""Why the service cannot answer now, or None."""
ANYBODY = "anybody"
TIMEOUT_HEADER = b"x-request-timeout"
_READY_SECONDS = 1.0
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_LOOPBACK_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_logger = logging.getLogger("presage.web")


def protect(
    app: Starlette,
    settings: WebSettings,
    *,
    api: str,
    ready: Readiness | None = None,
    telemetry: WebTelemetry | None = None,
    access_log: AccessLog | None = None,
    owner_of: Callable[[str], str | None] | None = None,
) -> Protection:
    """The app behind everything in this package; serve the result (``serving.serve``).

    Adds /healthz, /readyz and /metrics, which need no token. Handlers find the request's
    ``Exchange`` in ``request.scope["presage"]`` and may raise any PresageError. What needs no
    token (a page's files) is named by ``open_paths`` and ``open_prefixes`` of the result, where
    bodies of any type are read piece by piece by its ``stream_paths``.

    owner_of: the API a path belongs to, which a token must be for, where it is not ``api``; "" is
    for any token.
    """
    add_handlers(app)
    return Protection(
        app,
        settings,
        api=api,
        ready=ready,
        telemetry=telemetry or WebTelemetry(api),
        access_log=access_log or AccessLog(),
        owner_of=owner_of,
    )


class Protection:
    """The ASGI app that ``protect`` makes. ``draining``: set when the service is told to stop."""

    def __init__(
        self,
        app: ASGIApp,
        settings: WebSettings,
        *,
        api: str,
        ready: Readiness | None,
        telemetry: WebTelemetry,
        access_log: AccessLog,
        owner_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._app = app
        self.settings = settings
        self.api = api
        self.telemetry = telemetry
        self.in_flight = InFlight(settings.in_flight)
        self.telemetry.in_flight_limit.set(settings.in_flight)
        self.draining = False
        self.open_paths: frozenset[str] = frozenset()
        self.open_prefixes: tuple[str, ...] = ()
        self.stream_paths: re.Pattern[str] | None = None
        self._ready = ready
        self._ready_lock: asyncio.Lock | None = None
        self._ready_said: tuple[float, str | None] = (-1e9, None)
        self._access_log = access_log
        self._owner_of = owner_of or (lambda _: None)
        self._held = Held(settings.largest_held_bytes)
        self._rates = RateLimit(settings.burst)
        self._tokens = None if settings.tokens_file is None else TokenBook(settings.tokens_file)
        self._hosts = _LOOPBACK_NAMES | {settings.host.encode()}
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._strict = (
            [(b"strict-transport-security", b"max-age=31536000")]
            if settings.tls_certificate_file is not None
            else []
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        client = scope.get("client")
        exchange = Exchange(
            request_id_of(headers.get(b"x-request-id", b"")),
            scope["method"],
            client=client[0] if client else "",
            deadline_seconds=self.settings.deadline_seconds,
        )
        language = headers.get(b"accept-language")
        if language:
            exchange.chinese = wants_chinese(language.decode("latin-1"))
        scope["presage"] = exchange
        reader = BodyReader(
            receive,
            self.settings,
            self._held,
            gzipped=headers.get(b"content-encoding", b"").lower() == b"gzip",
            stream=self._is_stream(scope, headers),
        )
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        reader.complete = reader.arrived = not has_body
        answer = Answer(
            exchange,
            reader,
            send,
            extra=self._extra_headers(headers.get(b"origin", b"")),
            closing=self.draining,
        )
        if scope["path"] in _OPEN_PATHS:
            await self._about(scope, answer)
            return
        entered = False
        try:
            self._admit(scope, headers, exchange)
            if exchange.method == "OPTIONS" and await self._preflight(headers, answer):
                return
            self.in_flight.enter()
            entered = True
            self.telemetry.in_flight.set(self.in_flight.count)
            await self._app(scope, reader, answer)
        except RequestRefusedError as error:
            await answer.refuse(error)
        except SlowReaderError:
            exchange.reason = "slow_reader"
        except Exception as error:
            exchange.reason = exchange.reason or "internal"
            _logger.exception("request %s: %s", exchange.request_id, type(error).__name__)
            if not answer.started:
                await answer.refuse(PresageError("it broke inside"))
        finally:
            reader.release()
            if entered:
                self.in_flight.leave()
                self.telemetry.in_flight.set(self.in_flight.count)
            exchange.received_bytes = reader.received_bytes
            route = getattr(scope.get("route"), "path", None)
            exchange.route = route if isinstance(route, str) else "none"
            # 499, as nginx has it: the caller went away.
            exchange.status = exchange.status or 499
            self.telemetry.answered(
                exchange.method,
                exchange.route,
                exchange.status,
                exchange.seconds,
                exchange.reason,
            )
            self._access_log.write(self.api, exchange)

    def _is_stream(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Whether the body is read piece by piece, so that it may be long."""
        if self.stream_paths is not None and self.stream_paths.fullmatch(scope["path"]):
            return True
        return headers.get(b"content-type", b"").lower().startswith(NDJSON.encode())

    def is_open(self, path: str) -> bool:
        """Whether a path needs no token."""
        return path in self.open_paths or path.startswith(self.open_prefixes or ("\0",))

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], exchange: Exchange) -> None:
        """Raises RequestRefusedError, from the cheapest check to the dearest."""
        raw_path = scope.get("raw_path") or b""
        check_header_size(
            scope["headers"], len(raw_path) + len(scope.get("query_string", b"")), self.settings
        )
        if self.draining:
            raise RequestRefusedError(
                "the service is shutting down", status=503, reason="draining", retry_after_seconds=2
            )
        if self.settings.no_tokens:
            self._check_host(headers)
            exchange.caller = ANYBODY
        elif not self.is_open(scope["path"]) and not (
            exchange.method == "OPTIONS" and b"access-control-request-method" in headers
        ):
            owner = self._owner_of(scope["path"])
            self._check_token(headers, exchange, self.api if owner is None else owner)
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            settings, stream = self.settings, self._is_stream(scope, headers)
            largest = settings.largest_stream_bytes if stream else settings.largest_body_bytes
            if int(length[:20]) > largest:
                raise body_too_large(largest)
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding not in (b"identity", b"gzip", b""):
            raise RequestRefusedError(
                "the body's encoding is not known",
                status=415,
                reason="encoding",
                expected="gzip or none",
                got=repr(encoding[:40].decode("latin-1")),
            )
        given = headers.get(TIMEOUT_HEADER)
        if given is not None:
            exchange.deadline_seconds = min(self.settings.deadline_seconds, _seconds(given))

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Without tokens a page of another site must not ask through a visitor's browser by giving
        its own name this machine's address.
        """
        host = headers.get(b"host", b"")
        name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
        if name.lower() not in self._hosts:
            raise RequestRefusedError(
                "without tokens only this machine may ask",
                status=403,
                reason="forbidden",
                expected="Host: localhost or 127.0.0.1",
                got=repr(host[:80].decode("latin-1")),
            )

    def _check_token(self, headers: dict[bytes, bytes], exchange: Exchange, api: str) -> None:
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        secret = secret.strip()
        if scheme.lower() != b"bearer" or not secret:
            raise RequestRefusedError(
                "a token is needed",
                status=401,
                reason="no_token",
                expected="Authorization: Bearer …",
            )
        token = None if self._tokens is None else self._tokens.find(secret.decode("latin-1"))
        if token is None:
            raise RequestRefusedError("the token is not known", status=401, reason="bad_token")
        exchange.caller = token.name
        if api and not token.may_use(api):
            raise RequestRefusedError(
                "the token is for other APIs", status=403, reason="forbidden", expected=api
            )
        rate = token.rate_per_second
        self._rates.take(token.name, self.settings.rate_per_second if rate is None else rate)

    def _extra_headers(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if not origin or origin not in self._origins:
            return self._strict
        return [
            *self._strict,
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"x-request-id, retry-after"),
            (b"vary", b"origin"),
        ]

    async def _preflight(self, headers: dict[bytes, bytes], answer: Answer) -> bool:
        """Answers a CORS preflight of an allowed origin; any other OPTIONS is the app's."""
        if (
            b"access-control-request-method" not in headers
            or headers.get(b"origin", b"") not in self._origins
        ):
            return False
        await answer.whole(
            204,
            [
                (b"access-control-allow-methods", b"GET, POST"),
                (
                    b"access-control-allow-headers",
                    b"authorization, content-type, x-request-id, x-request-timeout",
                ),
                (b"access-control-max-age", b"600"),
            ],
            b"",
        )
        return True

    async def _about(self, scope: Scope, answer: Answer) -> None:
        """Health, readiness and metrics: not logged, not limited, never waiting for long."""
        if scope["method"] not in ("GET", "HEAD"):
            await answer.refuse(
                RequestRefusedError("only GET here", status=405, reason="method"),
                [(b"allow", b"GET, HEAD")],
            )
            return
        status, kind, body = 200, b"application/json", b'{"status":"ok"}'
        if scope["path"] == "/metrics":
            kind, body = CONTENT_TYPE.encode(), self.telemetry.render()
        elif scope["path"] == "/readyz":
            why = await self._not_ready()
            status = 200 if why is None else 503
            told = {"status": "ready"} if why is None else {"status": "not ready", "detail": why}
            body = orjson.dumps(told)
        await answer.whole(status, [(b"content-type", kind)], body)

    async def _not_ready(self) -> str | None:
        if self.draining:
            return "shutting down"
        if self._tokens is not None and self._tokens.trouble is not None:
            return "the tokens file cannot be used"
        if self._ready is None:
            return None
        if self._ready_lock is None:
            self._ready_lock = asyncio.Lock()
        # However many ask at once, the models are asked once a second.
        async with self._ready_lock:
            asked_at, why = self._ready_said
            if time.monotonic() - asked_at >= _READY_SECONDS:
                why = await self._ready()
                self._ready_said = (time.monotonic(), why)
        return None if why is None else scrub(why)


def _seconds(given: bytes) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise RequestRefusedError(
            "the timeout makes no sense",
            status=400,
            reason="timeout",
            where="X-Request-Timeout",
            expected="seconds above 0",
            got=repr(given[:40].decode("latin-1")),
        )
    return seconds
