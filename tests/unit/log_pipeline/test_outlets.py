"""Anomalies out: repeated until they are there, once each where ids can see to it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ServerAnswerError, ServerUnavailableError
from services.log_pipeline.alerting import Alerting
from services.log_pipeline.classifier import LineClassifier
from services.log_pipeline.delivery import Delivery, StoppedError
from services.log_pipeline.event import Event, read_document
from services.log_pipeline.lines import Oddities
from services.log_pipeline.outlets import Anomaly, Elasticsearch, JsonLines
from services.log_pipeline.telemetry import Telemetry
from services.log_pipeline.templates import TemplateBook
from services.log_pipeline.top import read_top, top_table
from tests.fixtures.endpoints import Endpoint
from tests.unit.log_pipeline.conftest import Answerer


def anomaly(number: int, text: str = "disk failed") -> Anomaly:
    return Anomaly(f"id-{number}", Event(text.encode(), "host", 1000.0 + number), 0.9, "t1", "1")


class BulkServer:
    """Keeps documents by id, as Elasticsearch does; ``faults`` are answered first."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.faults: list[tuple[int, bytes]] = []
        self.full_items = 0

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.faults:
            return self.faults.pop(0)
        lines = body.decode().split("\n")[:-1]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            name = json.loads(action)["create"]["_id"]
            if self.full_items:
                self.full_items -= 1
                status = 429
            elif name in self.documents:
                status = 409
            elif "unmappable" in document:
                status = 400
            else:
                status, self.documents[name] = 201, json.loads(document)
            items.append({"create": {"status": status}})
        return 200, json.dumps({"items": items}).encode()


@pytest.fixture
def bulk() -> BulkServer:
    return BulkServer()


def test_elasticsearch_gets_each_anomaly_once(bulk: BulkServer) -> None:
    with Endpoint(bulk.respond) as endpoint:
        outlet = Elasticsearch(endpoint.url)
        outlet.deliver([anomaly(n) for n in range(2500)])
        outlet.deliver([anomaly(n) for n in range(2400, 2600)])
        outlet.deliver([anomaly(9000, "unmappable")])
        outlet.close()
    assert len(bulk.documents) == 2600
    assert bulk.documents["id-7"]["message"] == "disk failed"
    assert bulk.documents["id-7"]["@timestamp"] == "1970-01-01T00:16:47+00:00"
    assert outlet.refused == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ((429, b"{}"), ServerUnavailableError),
        ((503, b"{}"), ServerUnavailableError),
        ((401, b"no"), ServerAnswerError),
        ((200, b"<html>"), ServerAnswerError),
    ],
)
def test_elasticsearch_that_does_not_take_them(
    bulk: BulkServer, fault: tuple[int, bytes], error: type[Exception]
) -> None:
    bulk.faults = [fault]
    with Endpoint(bulk.respond) as endpoint:
        outlet = Elasticsearch(endpoint.url)
        with pytest.raises(error):
            outlet.deliver([anomaly(1)])
    with pytest.raises(ServerUnavailableError):
        Elasticsearch("http://127.0.0.1:9").deliver([anomaly(1)])


def test_a_full_item_is_sent_again(bulk: BulkServer, classifier: LineClassifier) -> None:
    bulk.full_items = 2
    bulk.faults = [(503, b"")]
    telemetry = Telemetry()
    lines = [b"line %s" % letter.encode() for letter in "abcdefgh" * 3]
    with Endpoint(bulk.respond) as endpoint:
        delivery = Delivery(classifier, [Elasticsearch(endpoint.url)], telemetry=telemetry)
        found = delivery.deliver([(Event(b, "h", 1.0), f"{n}") for n, b in enumerate(lines)])
    assert found == len(bulk.documents) > 0
    assert b'presage_log_outlet_errors_total{outlet="elasticsearch"} 2' in telemetry.render()


def test_a_stop_ends_the_repeating(classifier: LineClassifier) -> None:
    stop = threading.Event()
    stop.set()
    delivery = Delivery(classifier, [Elasticsearch("http://127.0.0.1:9")], stop=stop)
    lines = [b"line %s" % letter.encode() for letter in "abcdefgh"]
    with pytest.raises(StoppedError):
        delivery.deliver([(Event(b, "h", 1.0), f"{n}") for n, b in enumerate(lines)])


def test_json_lines_mend_what_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "deep/anomalies.jsonl"
    JsonLines(path).deliver([anomaly(1)])
    path.write_bytes(path.read_bytes() + b'{"half')
    JsonLines(path).deliver([anomaly(2)])
    lines = path.read_text().splitlines()
    assert [json.loads(lines[0])["id"], lines[1], json.loads(lines[2])["id"]] == [
        "id-1",
        '{"half',
        "id-2",
    ]


class Alerts:
    def __init__(self) -> None:
        self.sent: list[list[dict[str, Any]]] = []
        self.status = 200

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        assert path == "/api/v2/alerts"
        self.sent.append(json.loads(body))
        return self.status, b""


def test_a_storm_is_one_alert_that_ends() -> None:
    now = [1000.0]
    book = TemplateBook(clock=lambda: now[0])
    alerts = Alerts()
    with Endpoint(alerts.respond) as endpoint:
        alerting = Alerting(endpoint.url, clock=lambda: now[0])
        for source in ("a", "b", "c"):
            book.add(source, "disk <num> failed", 1000, example=b"disk 7 failed", score=0.9)
        assert alerting.tell(book.top(100)) == 1
        assert alerting.tell(book.top(100)) == 0
        now[0] += 61
        book.add("a", "disk <num> failed", 1, example=b"disk 8 failed", score=0.9)
        assert alerting.tell(book.top(100)) == 1
        now[0] += 1000
        assert alerting.tell(book.top(100)) == 0
        alerts.status = 500
        book.add("a", "disk <num> failed", 1, example=b"x", score=0.9)
        with pytest.raises(ServerAnswerError):
            alerting.tell(book.top(100))
        alerts.status = 200
        now[0] += 3.0
        # What Alertmanager refused counts as not told.
        assert alerting.tell(book.top(100)) == 1
    first, second = alerts.sent[0][0], alerts.sent[1][0]
    assert first["labels"] == second["labels"]
    assert first["annotations"]["count"] == "3000"
    assert second["annotations"]["count"] == "3001"
    assert second["endsAt"] > first["endsAt"]


def test_a_flood_of_templates_is_told_as_one() -> None:
    book = TemplateBook(clock=lambda: 1000.0)
    for number in range(80):
        book.add("a", f"template {number}", 1, example=b"x", score=0.9)
    alerts = Alerts()
    with Endpoint(alerts.respond) as endpoint:
        assert Alerting(endpoint.url, clock=lambda: 1000.0).tell(book.top(1000)) == 51
    assert "80 abnormal templates" in alerts.sent[0][-1]["annotations"]["summary"]


def test_an_alertmanager_that_is_away_is_not_asked_with_each_batch() -> None:
    now = [1000.0]
    book = TemplateBook(clock=lambda: now[0])
    book.add("a", "disk <num> failed", 1, example=b"x", score=0.9)
    alerts = Alerts()
    alerts.status = 500
    with Endpoint(alerts.respond) as endpoint:
        alerting = Alerting(endpoint.url, clock=lambda: now[0])
        asked = 0
        for _ in range(60):
            try:
                alerting.tell(book.top(100))
            except ServerAnswerError:
                asked += 1
            now[0] += 1.0
        assert asked == 5  # after 2, 4, 8, 16 and 30 seconds
        alerts.status = 200
        now[0] += 30.0
        assert alerting.tell(book.top(100)) == 1


def test_cardinality_is_bounded() -> None:
    telemetry = Telemetry()
    for number in range(3000):
        telemetry.anomalies("source", f"template{number}", 2)
        telemetry.lines(f"source{number}", "normal", 1)
    page = telemetry.render().decode()
    assert page.count("presage_log_anomalies_total{") == 1001
    assert 'presage_log_anomalies_total{source="other",template="other"} 4000.0' in page
    assert 'presage_log_lines_total{label="normal",source="other"} 2800.0' in page


def test_top_tells_new_and_surging_templates(
    tmp_path: Path, answerer: Answerer, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [10_000.0]
    book = TemplateBook(capacity=3, clock=lambda: now[0])
    book.add("h", "steady", 1000, example=b"s", score=0.9, seen=0.0)
    book.add("h", "surging", 10, example=b"s", score=0.9, seen=0.0)
    book.add("h", "steady", 30, example=b"s", score=0.9)
    book.add("h", "surging", 500, example=b"s", score=0.9)
    book.add("h", "new", 1, example=b"n", score=0.9)
    rows = book.top()
    assert [row["template"] for row in rows] == ["new", "surging", "steady"]
    assert rows[0]["new"]
    assert rows[1]["surge"] > 100
    assert rows[2]["surge"] == pytest.approx(30 / 300 / (1000 / 9700), abs=0.01)
    book.add("h", "pushes the oldest out", 1, example=b"p", score=0.9)
    assert len(book) == 3
    assert book.forgotten == 1030
    path = tmp_path / "anomalies.jsonl"
    JsonLines(path).deliver([anomaly(n) for n in range(5)])
    assert read_top(str(path), 5)[0]["count"] == 5
    assert "disk failed" in top_table(read_top(str(path), 5))


def test_top_is_told_while_templates_are_added() -> None:
    book = TemplateBook(capacity=200)
    stop = threading.Event()

    def add() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            book.add("h", f"t{number % 500}", 1, example=b"x", score=0.9, seen=float(number * 20))

    adder = threading.Thread(target=add)
    adder.start()
    try:
        for _ in range(300):
            assert len(book.top(1000)) <= 201
    finally:
        stop.set()
        adder.join()


@pytest.mark.parametrize(
    ("document", "line", "source", "odd"),
    [
        ({"message": "a", "host": {"name": "n1"}}, b"a", "n1", {}),
        ({"log": "b", "kubernetes": {"namespace_name": "ns", "pod_name": "p"}}, b"b", "ns/p", {}),
        ({"msg": "c", "kubernetes.namespace": "ns"}, b"c", "ns/", {}),
        ({"message": None}, b"", "idx", {"no_message": 1}),
        ({"message": {"a": 1}}, b'{"a":1}', "idx", {"message_is_no_text": 1}),
        ({"message": "a", "@timestamp": "nonsense"}, b"a", "idx", {"bad_timestamp": 1}),
        ({"message": "a", "@timestamp": "2999-01-01T00:00:00Z"}, b"a", "idx", {"clock_skew": 1}),
        ({"message": "a", "@timestamp": 1}, b"a", "idx", {"late": 1}),
        ({"message": "a", "@timestamp": 1e300}, b"a", "idx", {"clock_skew": 1}),
        ({"message": "a", "kubernetes": 7, "service": []}, b"a", "idx", {}),
    ],
)
def test_documents_of_every_shape(
    document: dict[str, Any], line: bytes, source: str, odd: dict[str, int]
) -> None:
    counted = Oddities()
    event = read_document(document, "idx", 2e9, counted)
    assert (event.line, event.source, dict(counted)) == (line, source, odd)
    assert Event.unpack(event.pack()) == event
