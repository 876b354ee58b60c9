"""``make_app``: the ASGI app that shippers talk to as if it were Elasticsearch.

POST /_bulk, /<index>/_bulk   Elasticsearch's bulk API (index and create)
POST /lines                   plain JSON lines, or plain text lines
GET  /                        the handshake of Elasticsearch's clients
GET  /metrics /healthz /readyz /top
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from contract.errors import OverloadedError
from services.log_pipeline.bulk import BulkError, error_answer, read_bulk, read_json_lines
from services.log_pipeline.event import Event
from services.log_pipeline.lines import Oddities
from services.log_pipeline.telemetry import Telemetry
from services.log_pipeline.templates import TemplateBook
from services.spool import Spool

ELASTICSEARCH_VERSION = "8.15.0"
LARGEST_BODY_BYTES = 100 << 20
"""Unpacked, of one request: Elasticsearch's own http.max_content_length."""
_LARGEST_IN_FLIGHT_BYTES = 128 << 20
"""Of all requests being read at once."""
_RETRY_SECONDS = 1
_JSON = "application/json"
# Elasticsearch's clients refuse a server that does not say this.
_PRODUCT = {"X-Elastic-Product": "Elasticsearch"}


class _RefusedError(Exception):
    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.kind, self.reason = status, kind, reason


class Receiver:
    """Reads requests, spools their events, and answers once they are safe.

    not_ready: why nothing gets through just now, or None
    """

    def __init__(
        self,
        spool: Spool,
        telemetry: Telemetry,
        book: TemplateBook,
        not_ready: Callable[[], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._telemetry = telemetry
        self._book = book
        self._not_ready = not_ready
        self._clock = clock
        self._odd = Oddities()
        self._in_flight_bytes = 0
        self._items = 0
        self._reading = threading.Lock()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._hello, methods=["GET"]),
                Route("/_bulk", self._bulk, methods=["POST", "PUT"]),
                Route("/{index}/_bulk", self._bulk, methods=["POST", "PUT"]),
                Route("/lines", self._lines, methods=["POST"]),
                Route("/_license", self._license, methods=["GET"]),
                Route("/_xpack", self._license, methods=["GET"]),
                Route("/_cat/health", self._cat_health, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/healthz", self._healthz, methods=["GET"]),
                Route("/readyz", self._readyz, methods=["GET"]),
                Route("/top", self._top, methods=["GET"]),
            ],
            exception_handlers={404: self._unknown, 405: self._unknown},
        )

    async def _bulk(self, request: Request) -> Response:
        index = request.path_params.get("index", "")

        def read(body: bytes) -> tuple[Sequence[Event], Callable[[int], bytes]]:
            bulk = read_bulk(body, index, self._clock(), self._odd, self._items)
            self._items += len(bulk.items)
            return bulk.events, bulk.answer

        return await self._take(request, read)

    async def _lines(self, request: Request) -> Response:
        def read(body: bytes) -> tuple[Sequence[Event], Callable[[int], bytes]]:
            events, faults = read_json_lines(body, self._clock(), self._odd)
            told = {"accepted": len(events), "rejected": faults}
            return events, lambda _: orjson.dumps(told)

        return await self._take(request, read)

    async def _take(
        self,
        request: Request,
        read: Callable[[bytes], tuple[Sequence[Event], Callable[[int], bytes]]],
    ) -> Response:
        started = time.perf_counter()
        held = [0]
        try:
            body = await self._body(request, held)
            # Parsing and syncing take milliseconds: not in the loop that reads other requests.
            answer = await run_in_threadpool(self._keep, body, read)
            milliseconds = round((time.perf_counter() - started) * 1000)
            return self._answer(200, answer(milliseconds))
        except BulkError as error:
            self._odd["bad_request"] += 1
            return self._refuse(400, "illegal_argument_exception", str(error))
        except _RefusedError as error:
            return self._refuse(error.status, error.kind, error.reason)
        except OverloadedError as error:
            return self._refuse(429, "es_rejected_execution_exception", str(error))
        except ClientDisconnect:
            self._odd["disconnected"] += 1
            return Response(status_code=400)
        finally:
            self._in_flight_bytes -= held[0]

    def _keep(
        self,
        body: bytes,
        read: Callable[[bytes], tuple[Sequence[Event], Callable[[int], bytes]]],
    ) -> Callable[[int], bytes]:
        # One at a time: the interpreter would not do two anyway, and counters stay exact.
        with self._reading:
            events, answer = read(body)
        if events:
            self._spool.append([event.pack() for event in events])
        return answer

    async def _body(self, request: Request, held: list[int]) -> bytes:
        """The unpacked body. ``held``: its bytes, taken from what all requests may hold."""
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("gzip", "identity", ""):
            raise _RefusedError(415, "illegal_argument_exception", f"unsupported {encoding!r}")
        unpack = zlib.decompressobj(31) if encoding == "gzip" else None
        parts: list[bytes] = []
        async for chunk in request.stream():
            while chunk:
                part, chunk = chunk, b""
                if unpack is not None:
                    try:
                        part = unpack.decompress(part, 1 << 20)
                    except zlib.error as error:
                        self._odd["bad_gzip"] += 1
                        raise _RefusedError(400, "parse_exception", str(error)) from error
                    chunk = unpack.unconsumed_tail
                    if not chunk and unpack.eof and unpack.unused_data:
                        # gzip members may follow one another.
                        chunk, unpack = unpack.unused_data, zlib.decompressobj(31)
                held[0] += len(part)
                self._in_flight_bytes += len(part)
                if held[0] > LARGEST_BODY_BYTES:
                    raise _RefusedError(
                        413, "content_too_long_exception", f"more than {LARGEST_BODY_BYTES} bytes"
                    )
                if self._in_flight_bytes > _LARGEST_IN_FLIGHT_BYTES:
                    raise OverloadedError("too many requests at once")
                parts.append(part)
        if unpack is not None and not unpack.eof:
            self._odd["bad_gzip"] += 1
            raise _RefusedError(400, "parse_exception", "the gzip body ends too early")
        return b"".join(parts)

    def _answer(self, status: int, body: bytes, kind: str = _JSON) -> Response:
        self._telemetry.request(status)
        return Response(body, status, headers=_PRODUCT, media_type=kind)

    def _refuse(self, status: int, kind: str, reason: str) -> Response:
        answer = self._answer(status, error_answer(kind, reason, status))
        if status == 429:
            answer.headers["Retry-After"] = str(_RETRY_SECONDS)
        return answer

    async def _hello(self, request: Request) -> Response:
        told: dict[str, Any] = {
            "name": "presage",
            "cluster_name": "presage",
            "cluster_uuid": self._spool.identity,
            "version": {
                "number": ELASTICSEARCH_VERSION,
                "build_flavor": "default",
                "build_type": "docker",
                "build_hash": "0" * 40,
                "build_date": "2024-08-05T00:00:00.000000000Z",
                "build_snapshot": False,
                "lucene_version": "9.11.1",
                "minimum_wire_compatibility_version": "7.17.0",
                "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }
        return Response(orjson.dumps(told), headers=_PRODUCT, media_type=_JSON)

    async def _license(self, request: Request) -> Response:
        told = {"license": {"status": "active", "type": "basic", "uid": self._spool.identity}}
        return Response(orjson.dumps(told), headers=_PRODUCT, media_type=_JSON)

    async def _cat_health(self, request: Request) -> Response:
        return Response("green\n", headers=_PRODUCT, media_type="text/plain")

    async def _metrics(self, request: Request) -> Response:
        self._telemetry.odd(self._odd)
        self._telemetry.backlog(self._spool.backlog_bytes)
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._telemetry.render(), media_type=kind)

    async def _healthz(self, request: Request) -> Response:
        return Response("ok\n")

    async def _readyz(self, request: Request) -> Response:
        why = self._not_ready()
        return Response(f"{why or 'ready'}\n", 200 if why is None else 503)

    async def _top(self, request: Request) -> Response:
        try:
            limit = int(request.query_params.get("limit", "20"))
        except ValueError:
            limit = 20
        return Response(orjson.dumps(self._book.top(limit)), media_type=_JSON)

    async def _unknown(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        reason = f"no handler for {request.method} {request.url.path}: expected POST /_bulk"
        return self._refuse(status, "illegal_argument_exception", reason)
