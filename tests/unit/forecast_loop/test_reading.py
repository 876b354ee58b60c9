"""Reading a query: shards, pieces, newcomers, and everything that is wrong with a query."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from contract.errors import QueryError, ServerUnavailableError
from services.forecast_loop import reading as module
from services.forecast_loop.config import PrometheusSettings, Query
from services.forecast_loop.grid import Grid
from services.forecast_loop.prometheus import Prometheus
from services.forecast_loop.range_answer import RangeAnswer
from services.forecast_loop.reading import QueryReader, StoppedError, unit_suspicion
from services.forecast_loop.series_store import SeriesStore
from tests.unit.forecast_loop.conftest import FakeServer, matrix, refused, success

STEP = 300
NOW = 100 * STEP


class Source:
    """A Prometheus of few series: (cluster, group, instance) → (first, last moment in steps).

    The value at a moment is its number of steps, so that a shifted column is seen.
    """

    def __init__(self, server: FakeServer) -> None:
        self.series: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.kinds: dict[str, str] = {}
        self.refused: dict[str, tuple[int, bytes]] = {}
        self.server = server
        server.respond = self.respond

    @property
    def ranges(self) -> list[tuple[str, int, int]]:
        """(query, first, last moment in steps) of each query_range."""
        return [
            (form["query"], int(form["start"]) // STEP, int(form["end"]) // STEP)
            for path, form in self.server.asked
            if path == "/api/v1/query_range"
        ]

    def respond(self, path: str, form: dict[str, str]) -> tuple[int, bytes]:
        if path == "/api/v1/metadata":
            kind = self.kinds.get(form["metric"])
            return 200, success({form["metric"]: [{"type": kind}]} if kind else {})
        if path == "/api/v1/label/__name__/values":
            return 200, success(["m"] if self.series and '"m"' in form["match[]"] else [])
        if path == "/api/v1/label/cluster/values":
            return 200, success(sorted({key[0] for key in self.series if key[0]}))
        if path == "/api/v1/query" and "count" in self.refused:
            return self.refused["count"]
        if path == "/api/v1/query":
            pair = [0, str(len(self.series))]
            return 200, success({"resultType": "vector", "result": [{"value": pair}]})
        return self.range(form)

    def range(self, form: dict[str, str]) -> tuple[int, bytes]:
        for words, answer in self.refused.items():
            if words in form["query"]:
                return answer
        start, end = int(form["start"]) // STEP, int(form["end"]) // STEP
        pattern = re.search(r'cluster=~?"((?:[^"\\]|\\.)*)"', form["query"])
        found = {}
        for (cluster, group, instance), (first, last) in self.series.items():
            if pattern and not re.fullmatch(re.sub(r"\\(.)", r"\1", pattern[1]), cluster):
                continue
            labels = {"cluster": cluster, "group": group, "instance": instance}
            key = tuple((name, text) for name, text in labels.items() if text)
            moments = range(max(start, first), min(end, last) + 1)
            found[key] = {moment * STEP: float(moment) for moment in moments}
        return 200, matrix(found)


@pytest.fixture
def source(fake_server: FakeServer) -> Source:
    return Source(fake_server)


@pytest.fixture
def prometheus(fake_server: FakeServer) -> Iterator[Prometheus]:
    with Prometheus(PrometheusSettings(url=fake_server.url, attempts=1)) as client:
        yield client


def make(
    prometheus: Prometheus, columns: int = 10, **settings: Any
) -> tuple[QueryReader, SeriesStore]:
    query = Query(metric="m", labels=("cluster", "group"), **settings)
    store = SeriesStore(
        query.labels, columns=columns, step_seconds=STEP, max_series=8, fresh_columns=4
    )
    return QueryReader(query, prometheus, threading.Event()), store


def held(store: SeriesStore, *key: str) -> list[float]:
    row = store.row(key)
    assert row is not None, key
    return [float(value) for value in store.values[row]]


def test_the_whole_window_then_only_what_is_new(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "x", ""): (0, 999)}
    reader, store = make(prometheus)
    report = reader.read(store, NOW + 17.0)
    assert (report.series, report.joined) == (2, 2)
    assert held(store, "a", "x") == list(range(91, 101))
    reader.read(store, NOW + 3 * STEP)
    assert source.ranges == [("m", 91, 100), ("m", 100, 103)]
    assert held(store, "b", "x") == list(range(94, 104))
    # After an outage longer than the window everything is read again.
    reader.read(store, NOW + 50 * STEP)
    assert source.ranges[-1] == ("m", 141, 150)
    assert held(store, "b", "x") == list(range(141, 151))


def test_shards_find_every_series_once(source: Source, prometheus: Prometheus) -> None:
    names = ["a.b", 'q"uote', "back\\slash", "c", ""]
    source.series = {(name, "x", ""): (0, 999) for name in names}
    reader, store = make(prometheus, shard_by="cluster", shard_values=2)
    report = reader.read(store, NOW)
    assert report.series == 4
    assert report.oddities.counts == {"missing_label": 1}  # found in the last shard, named
    queries = [query for query, _, _ in source.ranges]
    assert sorted(queries) == sorted(
        [
            'm{cluster=~"a\\\\.b|back\\\\\\\\slash"}',
            'm{cluster=~"c|q\\"uote"}',
            'm{cluster=""}',
        ]
    )


def test_pieces_of_bounded_size(
    source: Source, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "gone", ""): (0, 93)}
    monkeypatch.setattr(module, "MOST_SAMPLES", 8)
    reader, store = make(prometheus)
    assert reader.read(store, NOW).series == 1
    assert source.ranges == [("m", 97, 100), ("m", 93, 96), ("m", 91, 92)]
    assert held(store, "a", "x") == list(range(91, 101))
    assert store.row(("b", "gone")) is None


def test_what_cannot_be_counted_is_read_in_small_pieces(
    source: Source, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "x", ""): (0, 999)}
    source.refused["count"] = refused(422, "too many samples")
    monkeypatch.setattr(module, "MOST_SAMPLES", 8 * 5)  # max_series of 8
    reader, store = make(prometheus, max_series=8)
    reader.read(store, NOW)
    assert [end - start + 1 for _, start, end in source.ranges] == [5, 5]
    # Once the store is filled its size is what counts, and a shard's part of it.
    source.series["a", "new", ""] = (90, 999)
    del source.refused["count"]
    source.server.asked.clear()
    reader.read(store, NOW + STEP)
    assert [end - start + 1 for _, start, end in source.ranges] == [2, 10]


def test_no_query_exceeds_what_prometheus_answers(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 99_999)}
    reader, store = make(prometheus, columns=25_000)
    reader.read(store, 30_000 * STEP)
    assert [end - start + 1 for _, start, end in source.ranges] == [11_000, 11_000, 3_000]
    assert held(store, "a", "x") == list(range(5_001, 30_001))


def test_a_newcomer_gets_its_past(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "x", ""): (0, 999)}
    reader, store = make(prometheus, shard_by="cluster", shard_values=1)
    reader.read(store, NOW)
    source.series["b", "new", ""] = (95, 999)
    source.server.asked.clear()
    assert reader.read(store, NOW + STEP).joined == 1
    np.testing.assert_array_equal(
        held(store, "b", "new"), [np.nan] * 3 + [float(i) for i in range(95, 102)]
    )
    again = [query for query, start, _ in source.ranges if start == 92]
    assert again == ['m{cluster=~"b"}']  # only the shard that brought it


def test_a_newcomers_past_is_owed_until_it_can_be_read(
    source: Source, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.series = {("a", "x", ""): (0, 999)}
    reader, store = make(prometheus)
    reader.read(store, NOW)
    source.series["b", "new", ""] = (90, 999)
    ask = prometheus.query_range
    with monkeypatch.context() as patch:
        busy = ServerUnavailableError("busy")

        def only_short(query: str, grid: Grid) -> RangeAnswer:
            if grid.points > 4:
                raise busy
            return ask(query, grid)

        patch.setattr(prometheus, "query_range", only_short)
        assert reader.read(store, NOW + STEP).failures == [busy]
    reader.read(store, NOW + 2 * STEP)
    assert held(store, "b", "new") == list(range(93, 103))


def test_a_failed_shard_is_made_up_for(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "x", ""): (0, 999)}
    reader, store = make(prometheus, shard_by="cluster", shard_values=1)
    reader.read(store, NOW)
    source.refused['"b"'] = refused(422, "too many samples")
    for cycle in (1, 2):
        report = reader.read(store, NOW + cycle * STEP)
        assert {getattr(error, "reason", "") for error in report.failures} == {"refused"}
        assert np.isnan(held(store, "b", "x")[-1])
    source.refused.clear()
    source.server.asked.clear()
    assert not reader.read(store, NOW + 3 * STEP).failures
    assert held(store, "b", "x") == list(range(94, 104))
    # The others were not read again for its sake.
    assert [start for query, start, _ in source.ranges if '"a"' in query] == [102]
    source.server.asked.clear()
    reader.read(store, NOW + 4 * STEP)
    assert [start for _, start, _ in source.ranges] == [103, 103, 103]


def test_a_shard_that_fails_at_first_is_made_up_for(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999), ("b", "x", ""): (0, 999)}
    reader, store = make(prometheus, shard_by="cluster", shard_values=1)
    source.refused['"b"'] = refused(422, "too many samples")
    assert reader.read(store, NOW).series == 1
    source.refused.clear()
    assert reader.read(store, NOW + STEP).series == 2
    assert held(store, "b", "x") == list(range(92, 102))


def test_all_shards_failing_is_the_query_failing(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999)}
    source.refused["m"] = refused(503, "busy")
    reader, store = make(prometheus, columns=10)
    with pytest.raises(ServerUnavailableError, match="busy"):
        reader.read(store, NOW)
    source.refused.clear()
    reader.read(store, NOW + STEP)
    assert held(store, "a", "x") == list(range(92, 102))


def test_a_prometheus_that_is_away_is_not_asked_shard_by_shard(
    source: Source, prometheus: Prometheus
) -> None:
    source.series = {(f"c{i}", "x", ""): (0, 999) for i in range(8)}
    source.refused["m"] = refused(503, "busy")
    reader, store = make(prometheus, shard_by="cluster", shard_values=1)
    with pytest.raises(ServerUnavailableError, match="busy"):
        reader.read(store, NOW)
    # Three in vain, and the one that the other thread had begun meanwhile.
    assert module.MOST_UNANSWERED <= len(source.ranges) <= module.MOST_UNANSWERED + 1
    source.refused.clear()
    assert reader.read(store, NOW).series == 8


@pytest.mark.parametrize(
    ("settings", "kinds", "reason", "words"),
    [
        ({"expr": "other"}, {}, "unknown_metric", "knows no metric other"),
        ({"expr": 'm{a="b"}'}, {"none": "x"}, "empty_result", "no series has points now"),
        ({}, {"m": "counter"}, "counter", r"rate\(m\[5m\]\)"),
        ({"expr": "m_total"}, {}, "counter", "by its name"),
    ],
)
def test_queries_that_give_nothing(
    source: Source,
    prometheus: Prometheus,
    settings: dict[str, Any],
    kinds: dict[str, str],
    reason: str,
    words: str,
) -> None:
    source.series = {("a", "x", ""): (0, 50)}  # it ended long ago
    source.kinds = kinds
    reader, store = make(prometheus, **settings)
    with pytest.raises(QueryError, match=words) as caught:
        reader.read(store, NOW)
    assert caught.value.reason == reason
    assert "queries.m.expr" in str(caught.value)


def test_a_label_that_no_series_has(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "", "1"): (0, 999), ("b", "", "2"): (0, 999)}
    reader, store = make(prometheus)
    with pytest.raises(QueryError, match="none of 2 series") as caught:
        reader.read(store, NOW)
    assert caught.value.reason == "missing_label"
    assert "queries.m.labels" in str(caught.value)


def test_counters_may_be_allowed_and_gauges_are(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999)}
    source.kinds = {"m": "counter"}
    reader, store = make(prometheus, allow_counter=True)
    assert reader.read(store, NOW).series == 1
    source.kinds = {"m": "gauge"}
    reader, store = make(prometheus)
    assert reader.read(store, NOW).series == 1


def test_a_stop_ends_the_reading(source: Source, prometheus: Prometheus) -> None:
    source.series = {("a", "x", ""): (0, 999)}
    stop = threading.Event()
    _, store = make(prometheus)
    reader = QueryReader(Query(metric="m", labels=("cluster",)), prometheus, stop)
    stop.set()
    with pytest.raises(StoppedError):
        reader.read(store, NOW)


def test_the_unit_is_suspected_both_ways() -> None:
    def suspicion(unit: str, values: list[float], threshold: float | None = None) -> str | None:
        query = Query.model_validate(
            {"metric": "m", "labels": ["a"], "unit": unit, "threshold": threshold}
        )
        return unit_suspicion(query, np.array(values, dtype=np.float32))

    assert suspicion("ratio", [0.2, 0.9, 1.0]) is None
    assert "is m no ratio" in str(suspicion("ratio", [20.0, 93.0, 0.5, np.nan]))
    assert suspicion("ratio", [0.2, 0.9, 2.0]) is None  # one odd series is no unit
    assert "no percent" in str(suspicion("percent", [200.0, 300.0]))
    assert "ratio, not percent" in str(suspicion("percent", [0.2, 0.9], threshold=98.0))
    assert suspicion("percent", [0.0, 0.0], threshold=98.0) is None
    assert suspicion("bytes", [1e12]) is None
    assert suspicion("ratio", [np.nan]) is None
