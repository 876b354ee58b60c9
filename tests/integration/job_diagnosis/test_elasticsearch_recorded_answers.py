"""The official Elasticsearch client against answers as its documentation gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.errors import (
    DeadlineExceededError,
    InputError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.job_diagnosis.evidence import ElasticsearchReference, JobEvidence
from services.job_diagnosis.sources.retrying import Deadline
from services.job_diagnosis.sources.settings import SourceSettings, make_sources
from tests.fixtures.recorded_server import Answer, Asked, RecordedServer

PRODUCT = {
    "X-Elastic-Product": "Elasticsearch",
    "Content-Type": "application/vnd.elasticsearch+json;compatible-with=9",
}


def es(body: Any, status: int = 200, **more: Any) -> Answer:
    return Answer(status, body, dict(PRODUCT), **more)


def failure(status: int, kind: str, reason: str) -> Answer:
    cause = {"type": kind, "reason": reason}
    return es({"error": {"root_cause": [cause], **cause}, "status": status}, status)


class Cluster:
    """``documents``, in order of time; ``faults`` are answered first."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.hits = [
            {"_index": "logs", "_id": f"id{n}", "_source": document, "sort": [1000 + n // 3, n, n]}
            for n, document in enumerate(documents)
        ]
        self.faults: list[Answer] = []
        self.opened = 0
        self.closed = 0
        self.searches: list[dict[str, Any]] = []

    def respond(self, asked: Asked) -> Answer:
        if asked.method == "DELETE" and asked.path == "/_pit":
            self.closed += 1
            return es({"succeeded": True, "num_freed": 1})
        if self.faults:
            return self.faults.pop(0)
        if asked.path.endswith("/_pit"):
            self.opened += 1
            return es({"id": f"pit{self.opened}"})
        assert asked.path == "/_search"
        body = asked.body
        assert body["pit"]["id"] == f"pit{self.opened}"
        self.searches.append(body)
        order = next(iter(body["sort"][0].values()))["order"]
        hits = self.hits if order == "asc" else self.hits[::-1]
        if "search_after" in body:
            at = next(n for n, hit in enumerate(hits) if hit["sort"] == body["search_after"])
            hits = hits[at + 1 :]
        page = hits[: body["size"]]
        return es({"pit_id": f"pit{self.opened}", "hits": {"hits": page}})


def documents(count: int) -> list[dict[str, Any]]:
    return [
        {
            "@timestamp": f"2026-11-28T09:00:{n % 60:02d}.000Z",
            "message": f"line {n}",
            "kubernetes": {"node": {"name": "gpu-7"}, "pod": {"name": "train-7-0"}},
            "user": {"name": "ann"},
        }
        for n in range(count)
    ]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(documents(25))


Ask = Callable[..., JobEvidence]


@pytest.fixture
def ask(cluster: Cluster) -> Iterator[Ask]:
    with RecordedServer(cluster.respond) as server:

        def fetch(
            index: str = "logs-train", settings: dict[str, Any] | None = None, **named: Any
        ) -> JobEvidence:
            values = {"elasticsearch_url": server.url, **(settings or {})}
            source = make_sources(SourceSettings(**values))["elasticsearch"]
            limits = {"_page": 10, "_most_lines": 1000} | fetch.limits  # type: ignore[attr-defined]
            for name, value in limits.items():
                setattr(source, name, value)
            source._make_deadline = lambda what, seconds: Deadline(  # type: ignore[attr-defined]
                what, seconds, sleep=lambda _: None
            )
            if not named:
                named = {"query_string": 'kubernetes.labels.job-name:"train-7"'}
            return source.fetch(
                ElasticsearchReference.model_validate(
                    {"source": "elasticsearch", "index": index, **named}
                )
            )

        fetch.limits = {}  # type: ignore[attr-defined]
        yield fetch


def lines(evidence: JobEvidence) -> list[str]:
    return b"".join(evidence.log).decode().splitlines()


def test_all_pages_in_order(cluster: Cluster, ask: Ask) -> None:
    evidence = ask()
    assert lines(evidence) == [f"line {n}" for n in range(25)]
    assert (evidence.node, evidence.user) == ("gpu-7", "ann")
    assert len(cluster.searches) == 3
    assert (cluster.opened, cluster.closed) == (1, 1)
    first = cluster.searches[0]
    assert first["query"]["bool"]["filter"][0]["query_string"]["query"].startswith("kubernetes")
    assert [next(iter(key)) for key in first["sort"]] == ["@timestamp", "log.offset", "_shard_doc"]


def test_a_longer_log_is_its_beginning_and_its_end(cluster: Cluster, ask: Ask) -> None:
    cluster.__init__(documents(100))  # type: ignore[misc]
    ask.limits = {"_most_lines": 40}  # type: ignore[attr-defined]
    assert lines(ask()) == [f"line {n}" for n in [*range(10), *range(70, 100)]]


def test_beginning_and_end_do_not_overlap(cluster: Cluster, ask: Ask) -> None:
    ask.limits = {"_most_lines": 40}  # type: ignore[attr-defined]
    assert lines(ask()) == [f"line {n}" for n in range(25)]


def test_query_dsl_and_lines_of_a_traceback(cluster: Cluster, ask: Ask) -> None:
    cluster.hits[3]["_source"]["message"] = "Traceback:\n  File x\nOSError"
    found = lines(ask(query={"term": {"kubernetes.labels.job": "7"}}))
    assert found[3:6] == ["Traceback:", "  File x", "OSError"]
    assert cluster.searches[0]["query"]["bool"]["filter"] == [
        {"term": {"kubernetes.labels.job": "7"}}
    ]


@pytest.mark.parametrize(
    "fault", [failure(404, "search_context_missing_exception", "No search context"), es({}, 410)]
)
def test_a_point_in_time_that_expired_is_opened_again(
    cluster: Cluster, ask: Ask, fault: Answer
) -> None:
    answered = cluster.respond

    def respond(asked: Asked) -> Answer:
        if asked.path == "/_search" and len(cluster.searches) == 1 and cluster.opened == 1:
            return fault
        return answered(asked)

    cluster.respond = respond  # type: ignore[method-assign]
    with RecordedServer(respond) as server:
        source = make_sources(SourceSettings(elasticsearch_url=server.url))["elasticsearch"]
        source._page = 10  # type: ignore[attr-defined]
        reference = ElasticsearchReference(source="elasticsearch", index="a", query_string="x")
        assert lines(source.fetch(reference)) == [f"line {n}" for n in range(25)]
    assert cluster.opened == 2


def test_busy_and_broken_answers_are_asked_for_again(cluster: Cluster, ask: Ask) -> None:
    cluster.faults = [
        failure(429, "es_rejected_execution_exception", "queue full"),
        es({}, 503),
        es(b'{"id": "pit1"' + b" " * 100, break_after=20),
    ]
    assert len(lines(ask())) == 25


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (failure(404, "index_not_found_exception", "no such index [x]"), InputError, "index"),
        (failure(400, "query_shard_exception", "Failed to parse query [(]"), InputError, "parse"),
        (failure(403, "security_exception", "unauthorized"), ServerAnswerError, "API key"),
        (failure(401, "security_exception", "missing token"), ServerAnswerError, "API key"),
        (Answer(200, {"tagline": "something else"}), ServerAnswerError, "no Elasticsearch"),
        (es({"unexpected": 1}), ServerAnswerError, "not an answer"),
        (es(b"<html>"), ServerUnavailableError, "reached"),
    ],
)
def test_refusals_are_typed(
    cluster: Cluster, ask: Ask, fault: Answer, error: type[PresageError], says: str
) -> None:
    if isinstance(fault.body, bytes):
        fault.headers["Content-Type"] = PRODUCT["Content-Type"]
    cluster.faults = [fault] * 4
    with pytest.raises(error, match=says):
        ask()


def test_a_server_that_is_slow_or_away(cluster: Cluster, ask: Ask) -> None:
    cluster.faults = [es({}, hangs=True)] * 4
    quick = {"source_request_seconds": 0.2}
    with pytest.raises(ServerUnavailableError, match="slowly"):
        ask(settings=quick)
    cluster.faults = [es({}, hangs=True)] * 4
    with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
        ask(settings={"source_request_seconds": 5.0, "source_deadline_seconds": 0.3})
    with pytest.raises(ServerUnavailableError, match="reached"):
        ask(settings={"elasticsearch_url": "http://127.0.0.1:9"})


def test_nothing_found(cluster: Cluster, ask: Ask) -> None:
    cluster.hits = []
    with pytest.raises(InputError, match="finds no log lines"):
        ask()
    assert cluster.closed == 1


@pytest.mark.parametrize(
    "index",
    [
        "secrets",
        "logs-*,secrets",
        "*",
        "-logs-a",
        "_all",
        "logs-a,",
        "remote:logs-a",
        "<logs-{now}>",
    ],
)
def test_only_the_indices_of_the_settings(cluster: Cluster, ask: Ask, index: str) -> None:
    with pytest.raises(InputError, match="not for reading"):
        ask(index, settings={"elasticsearch_indices": ("logs-*",)})
    assert cluster.opened == 0


@pytest.mark.parametrize(
    "query",
    [
        {"script": {"script": {"source": "while(true){}"}}},
        {"bool": {"must": [{"terms": {"user": {"index": "secrets", "id": "1", "path": "p"}}}]}},
        {"wrapper": {"query": "eyJtYXRjaF9hbGwiOnt9fQ=="}},
        {"bool": {"must": {"bool": {"must": {"function_score": {"script_score": {}}}}}}},
    ],
)
def test_a_query_reads_nothing_else(cluster: Cluster, ask: Ask, query: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not allowed"):
        ask(query=query)
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"bool": deep}
    with pytest.raises(InputError, match="deep"):
        ask(query=deep)
    assert cluster.opened == 0


def test_a_reference_that_asks_for_nothing(ask: Ask) -> None:
    with pytest.raises(InputError, match=re.escape("query (query DSL)")):
        ask(query=None)
