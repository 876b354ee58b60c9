"""``ElasticsearchSource``: a job's log, of the documents that a query finds, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from contract.errors import (
    InputError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.job_diagnosis.evidence import ElasticsearchReference, JobEvidence
from services.job_diagnosis.sources.retrying import Deadline
from services.log_pipeline.event import read_document
from services.log_pipeline.lines import Oddities

_PAGE = 2_000
_KEEP_ALIVE = "1m"
_REOPENED = 3
_FIELDS = [
    "message", "log", "msg", "@timestamp", "timestamp", "kubernetes", "kubernetes.*",
    "host", "host.*", "hostname", "user", "user.*",
]  # fmt: skip
# What runs code, hides another query, or reads from an index beside the one that is named.
_REFUSED_CLAUSES = {
    "script", "script_score", "wrapper", "percolate", "indexed_shape", "index", "runtime_mappings",
}  # fmt: skip
_BUSY = {429, 500, 502, 503, 504}


@dataclass
class _Found:
    """Lines of one direction, and what the documents say beside them."""

    lines: list[bytes] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    size_bytes: int = 0
    complete: bool = False
    node: str | None = None
    user: str | None = None


class ElasticsearchSource:
    """By the official client, from a point in time, page by page with ``search_after``.

    client: an ``elasticsearch.Elasticsearch`` that does not retry by itself
    indices: patterns of which every named index must be one
    most_lines, largest_bytes: of a longer log the first quarter is read, and the end of it
    deadline_seconds: for all pages together
    """

    def __init__(
        self,
        client: Any,
        *,
        indices: Sequence[str] = ("*",),
        most_lines: int = 200_000,
        largest_bytes: int = 64 << 20,
        page_seconds: float = 10.0,
        deadline_seconds: float = 60.0,
        page: int = _PAGE,
        make_deadline: Callable[[str, float], Deadline] = Deadline,
    ) -> None:
        self._client = client
        self._indices = tuple(indices)
        self._most_lines = most_lines
        self._largest_bytes = largest_bytes
        self._page_seconds = page_seconds
        self._deadline_seconds = deadline_seconds
        self._page = page
        self._make_deadline = make_deadline

    def fetch(self, reference: ElasticsearchReference, /) -> JobEvidence:
        """Raises InputError (nothing found, no such index, a query that is none), ServerError."""
        self._check_index(reference.index)
        query = _query(reference)
        deadline = self._make_deadline("Elasticsearch", self._deadline_seconds)
        with _PointInTime(self._client, reference.index, deadline, self._page_seconds) as point:
            head = self._collect(point, query, deadline, "asc", 0.25, None)
            tail = _Found(complete=True)
            if not head.complete:
                tail = self._collect(point, query, deadline, "desc", 0.75, head)
        if not head.lines:
            raise InputError(
                "the query finds no log lines",
                where=f"index {reference.index}",
                expected="documents with message, log or msg",
                next_command="try the query in Kibana; a job's logs arrive some seconds late",
            )
        lines = head.lines + tail.lines[::-1]
        return JobEvidence(
            log=_joined(lines),
            node=tail.node or head.node,
            user=tail.user or head.user,
        )

    def _check_index(self, index: str) -> None:
        parts = index.split(",")
        if not all(
            part and any(fnmatchcase(part, pattern) for pattern in self._indices) for part in parts
        ) or any(part.startswith(("-", "_")) for part in parts):
            raise InputError(
                "this index is not for reading",
                where=f"index {index[:200]}",
                expected=" or ".join(self._indices),
            )

    def _collect(
        self,
        point: _PointInTime,
        query: Mapping[str, Any],
        deadline: Deadline,
        order: str,
        share: float,
        before: _Found | None,
    ) -> _Found:
        found = _Found()
        odd = Oddities()
        after: list[Any] | None = None
        while True:
            hits = point.search(query, order, after, self._page)
            for hit in hits:
                # From the end backwards: what is known from the beginning is where both meet.
                if before is not None and hit["_id"] in before.ids:
                    found.complete = True
                    return found
                _read(hit, found, odd, keep_id=before is None)
                if (
                    len(found.lines) >= share * self._most_lines
                    or found.size_bytes >= share * self._largest_bytes
                ):
                    return found
            if len(hits) < self._page:
                found.complete = True
                return found
            after = hits[-1]["sort"]
            deadline.left()


class _PointInTime:
    """Opened when entered, opened again when the server forgot it, closed when left."""

    def __init__(self, client: Any, index: str, deadline: Deadline, page_seconds: float) -> None:
        self._client = client
        self._index = index
        self._deadline = deadline
        self._page_seconds = page_seconds
        self._id = ""
        self._reopened = 0

    def __enter__(self) -> _PointInTime:
        self._id = self._open()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._client.options(request_timeout=5.0).close_point_in_time(id=self._id)
        except Exception:
            # It ends by itself in a minute.
            return

    def search(
        self, query: Mapping[str, Any], order: str, after: list[Any] | None, size: int
    ) -> list[dict[str, Any]]:
        def ask(left: float) -> list[dict[str, Any]]:
            client = self._client.options(request_timeout=min(self._page_seconds, left))
            answer = client.search(
                pit={"id": self._id, "keep_alive": _KEEP_ALIVE},
                query=dict(query),
                sort=_sort(order),
                size=size,
                search_after=after,
                track_total_hits=False,
                source_includes=_FIELDS,
            )
            self._id = answer.get("pit_id", self._id)
            hits = answer["hits"]["hits"]
            if any("_id" not in hit or "sort" not in hit for hit in hits):
                raise ServerAnswerError("not an answer of Elasticsearch", expected="hits with sort")
            return list(hits)

        while True:
            try:
                return self._deadline.retry(lambda left: _translated(self._index, ask, left))
            except _ForgottenError:
                self._reopened += 1
                if self._reopened > _REOPENED:
                    raise ServerUnavailableError(
                        "Elasticsearch forgets where the reading was",
                        where=f"index {self._index}",
                        got=f"a point in time that expired {self._reopened} times",
                    ) from None
                # The sort values still say where to go on.
                self._id = self._open()

    def _open(self) -> str:
        def ask(left: float) -> str:
            client = self._client.options(request_timeout=min(self._page_seconds, left))
            return str(client.open_point_in_time(index=self._index, keep_alive=_KEEP_ALIVE)["id"])

        opened: str = self._deadline.retry(lambda left: _translated(self._index, ask, left))
        return opened


def _sort(order: str) -> list[dict[str, Any]]:
    """Each order is the other's exact reverse; lines of one millisecond as Filebeat read them."""
    missing = "_last" if order == "asc" else "_first"
    return [
        {"@timestamp": {"order": order, "unmapped_type": "date", "missing": missing}},
        {"log.offset": {"order": order, "unmapped_type": "long", "missing": missing}},
        {"_shard_doc": {"order": order}},
    ]


class _ForgottenError(Exception):
    """The point in time is gone."""


def _query(reference: ElasticsearchReference) -> dict[str, Any]:
    clauses: list[dict[str, Any]] = []
    if reference.query is not None:
        _check_clauses(reference.query)
        clauses.append(reference.query)
    if reference.query_string is not None:
        clauses.append(
            {"query_string": {"query": reference.query_string, "allow_leading_wildcard": False}}
        )
    if not clauses:
        raise InputError(
            "nothing is asked for",
            where="reference",
            expected="query (query DSL) or query_string (Lucene)",
            next_command='for example "query_string": "kubernetes.labels.job-name:train-7"',
        )
    return {"bool": {"filter": clauses}}


def _check_clauses(query: Any, depth: int = 0) -> None:
    if depth > 30:
        raise InputError("the query is too deep", where="query", expected="at most 30 levels")
    if isinstance(query, Mapping):
        for name, inside in query.items():
            if name in _REFUSED_CLAUSES:
                raise InputError(
                    "a clause that is not allowed here", where="query", got=f"{name!r}"
                )
            _check_clauses(inside, depth + 1)
    elif isinstance(query, (list, tuple)):
        for inside in query:
            _check_clauses(inside, depth + 1)


def _read(hit: Mapping[str, Any], found: _Found, odd: Oddities, *, keep_id: bool) -> None:
    if keep_id:
        found.ids.add(hit["_id"])
    document = hit.get("_source") or {}
    # The whole of a multi-line message: clean_event would make one line of a traceback.
    event = read_document(document, str(hit.get("_index", "")), 0.0, odd)
    message = document.get("message", document.get("log", document.get("msg")))
    line = message.encode("utf-8", "replace") if isinstance(message, str) else event.line
    found.lines.append(line)
    found.size_bytes += len(line) + 1
    found.node = found.node or event.kubernetes.get("node") or _name(document, "host")
    found.user = found.user or _name(document, "user")


def _name(document: Mapping[str, Any], field_name: str) -> str | None:
    value = document.get(field_name, document.get(f"{field_name}.name"))
    if isinstance(value, Mapping):
        value = value.get("name")
    return value[:253] if isinstance(value, str) and value else None


def _joined(lines: Sequence[bytes]) -> Iterator[bytes]:
    for start in range(0, len(lines), 1_000):
        yield b"\n".join([*lines[start : start + 1_000], b""])


def _translated(index: str, ask: Callable[[float], Any], left: float) -> Any:
    """The client's errors as ours; the server's own words, which may hold log lines, cut short."""
    from elastic_transport import SerializationError
    from elasticsearch import (
        ApiError,
        ConnectionError,
        ConnectionTimeout,
        TransportError,
        UnsupportedProductError,
    )

    where = f"index {index}"
    try:
        return ask(left)
    except ConnectionTimeout as error:
        raise ServerUnavailableError(
            "Elasticsearch answers too slowly", where=where, got="no answer in time"
        ) from error
    except (ConnectionError, SerializationError) as error:
        raise ServerUnavailableError(
            "Elasticsearch cannot be reached", where=where, got=str(error.message)[:200]
        ) from error
    except UnsupportedProductError as error:
        raise ServerAnswerError("this is no Elasticsearch", where=where) from error
    except ApiError as error:
        raise _api_error(where, error) from error
    except TransportError as error:
        raise ServerAnswerError(
            "Elasticsearch cannot be asked", where=where, got=str(error.message)[:200]
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ServerAnswerError(
            "not an answer of Elasticsearch", where=where, got=repr(error)
        ) from error


def _api_error(where: str, error: Any) -> PresageError | _ForgottenError:
    status = int(error.meta.status)
    text = str(error.body)
    if "search_context_missing" in text or status == 410:
        return _ForgottenError()
    reason = str(error.message)[:200]
    if status in _BUSY:
        return ServerUnavailableError("Elasticsearch is busy", where=where, got=f"{status}")
    if status in (401, 403):
        return ServerAnswerError(
            "Elasticsearch refuses",
            where=where,
            expected="an API key that may read the index",
            got=f"{status}: {reason}",
        )
    if status == 404:
        return InputError("there is no such index", where=where, got=reason)
    if status == 400:
        return InputError(
            "Elasticsearch cannot read the query", where=where, got=_reason(error) or reason
        )
    return ServerAnswerError("Elasticsearch refuses", where=where, got=f"{status}: {reason}")


def _reason(error: Any) -> str | None:
    try:
        return str(error.body["error"]["root_cause"][0]["reason"])[:200]
    except (KeyError, TypeError, IndexError):
        return None
