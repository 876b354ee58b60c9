"""Real shippers, unchanged: rsyslog's omelasticsearch and the official Elasticsearch client."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch, helpers

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import wait_until
from tests.fixtures.pipeline_process import PipelineProcess, Rsyslog
from tests.fixtures.toy_model import LINES


@pytest.fixture
def pipeline(triton: EmbeddedServer, tmp_path: Path) -> Iterator[PipelineProcess]:
    with PipelineProcess(tmp_path / "pipeline", triton.grpc_url) as process:
        yield process


@pytest.fixture(scope="module")
def abnormal(triton: EmbeddedServer) -> list[str]:
    """The lines that the served model calls abnormal: some, not all."""
    with LogAnomalyClient(f"grpc://{triton.grpc_url}") as client:
        verdicts = client.classify(LINES)
    found = [t for t, v in zip(LINES, verdicts, strict=True) if v.label == "anomaly"]
    assert 0 < len(found) < len(LINES)
    return found


def anomalies(pipeline: PipelineProcess) -> list[dict[str, Any]]:
    if not pipeline.anomalies.is_file():
        return []
    return [json.loads(line) for line in pipeline.anomalies.read_text().splitlines()]


def test_rsyslog_ships_to_it(
    pipeline: PipelineProcess, abnormal: list[str], tmp_path: Path
) -> None:
    followed = tmp_path / "app.log"
    followed.write_text("".join(f"{line}\n" for line in LINES * 100))
    with Rsyslog(tmp_path / "rsyslog", followed, pipeline.port):
        pipeline.wait_delivered(600)
        with followed.open("a") as file:
            file.write("".join(f"{line}\n" for line in LINES))
        pipeline.wait_delivered(606)
    assert pipeline.delivered() == 606
    told = [record["message"].strip() for record in anomalies(pipeline)]
    assert told == [line for line in LINES * 101 if line in abnormal]
    assert {record["source"] for record in anomalies(pipeline)} != {"unknown"}


def test_rsyslog_waits_while_it_is_away(
    pipeline: PipelineProcess, abnormal: list[str], tmp_path: Path
) -> None:
    followed = tmp_path / "app.log"
    followed.write_text(f"{abnormal[0]}\n")
    with Rsyslog(tmp_path / "rsyslog", followed, pipeline.port):
        pipeline.wait_delivered(1)
        pipeline.kill()
        with followed.open("a") as file:
            file.write(f"{abnormal[0]}\n" * 50)
        pipeline.start()
        wait_until(lambda: len(anomalies(pipeline)) >= 51, seconds=60, what="51 anomalies")


def test_the_official_client_ships_to_it(pipeline: PipelineProcess, abnormal: list[str]) -> None:
    client = Elasticsearch(pipeline.url, http_compress=True)
    assert client.info()["tagline"] == "You Know, for Search"
    documents = [
        {
            "_index": "app",
            "_op_type": "create",
            "@timestamp": "2026-01-01T00:00:00Z",
            "message": line,
            "kubernetes": {"namespace": "train", "pod": {"name": f"p-{n}"}, "container": "job"},
        }
        for n in range(500)
        for line in LINES
    ]
    assert helpers.bulk(client, documents, chunk_size=700) == (len(documents), [])
    pipeline.wait_delivered(len(documents))
    told = anomalies(pipeline)
    assert [r["message"] for r in told] == [line for line in LINES * 500 if line in abnormal]
    assert {record["source"] for record in told} == {"train/job"}
    assert told[-1]["kubernetes"]["pod"] == "p-499"
    assert len({record["id"] for record in told}) == len(told)
    assert pipeline.metric("presage_log_lines_total", label="anomaly") == len(told)
    rows = pipeline.top()
    assert sum(row["count"] for row in rows) == len(told)
    assert {row["example"] for row in rows} == set(abnormal)
    client.close()


def test_an_item_that_is_bad_fails_alone(pipeline: PipelineProcess) -> None:
    with Elasticsearch(pipeline.url) as client:
        good, bad = helpers.bulk(
            client,
            [
                {"_index": "app", "message": "fine"},
                {"_op_type": "delete", "_index": "app", "_id": "1"},
                {"_index": "app", "log": "fine too"},
            ],
            raise_on_error=False,
        )
    assert good == 2
    assert bad[0]["delete"]["status"] == 400
    body = b'{"index":{}}\n{"message":"a"}\n{"index":{}}\n{"message":\n{"create":{}}\n[1]\n'
    answer = pipeline.bulk(body).json()
    assert answer["errors"] is True
    assert [next(iter(item.values()))["status"] for item in answer["items"]] == [201, 400, 400]
    pipeline.wait_delivered(3)
    assert pipeline.metric("presage_log_odd_lines_total", reason="bad_item") == 3


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b'{"index":{}}\n{"message":"no newline"}', {}, 400),
        (b'not json\n{"message":"a"}\n', {}, 400),
        (b'{"put":{}}\n{"message":"a"}\n', {}, 400),
        (b'{"index":{},"create":{}}\n{}\n', {}, 400),
        (b"not gzip", {"Content-Encoding": "gzip"}, 400),
        (
            gzip.compress(b'{"index":{}}\n{}\n' * 1000, mtime=0)[:-30],
            {"Content-Encoding": "gzip"},
            400,
        ),
        (b"x", {"Content-Encoding": "br"}, 415),
        (gzip.compress(b"\0" * (101 << 20), mtime=0), {"Content-Encoding": "gzip"}, 413),
    ],
)
def test_a_malformed_request_is_refused_as_elasticsearch_does(
    pipeline: PipelineProcess, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = pipeline.bulk(body, **headers)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.json()["error"]["reason"]
    # Nothing of it is kept, and the next request is served.
    assert pipeline.bulk(b'{"index":{}}\n{"message":"a"}\n').json()["errors"] is False
    pipeline.wait_delivered(1)
    assert pipeline.delivered() == 1


def test_bad_lines_are_counted_and_keep_their_order(
    pipeline: PipelineProcess, abnormal: list[str]
) -> None:
    mark = abnormal[0]
    odd = [
        mark,
        "\x1b[31m" + mark + "\x1b[0m",
        "nul\0byte",
        "x" * 1_000_000,
        "Traceback (most recent call last):\n  File a\nValueError: x",
        "",
        "\ud83d\ude00 half \ufffd",
        mark,
    ]
    items = "".join(
        json.dumps({"index": {}}) + "\n" + json.dumps({"message": text}) + "\n" for text in odd
    )
    assert pipeline.bulk(items.encode()).json()["errors"] is False
    assert pipeline.lines(b'{"msg":"j"}\nplain \xff text\r\n{"broken\n\n').json()["accepted"] == 2
    pipeline.bulk(b'{"index":{}}\n{"msg":1,"@timestamp":"2999-01-01T00:00:00Z"}\n')
    pipeline.bulk(b'{"index":{}}\n{"text":"none","@timestamp":"when"}\n')
    pipeline.wait_delivered(12)
    assert [r["message"] for r in anomalies(pipeline) if r["message"] == mark] == [mark] * 3

    def count(reason: str) -> float:
        return pipeline.metric("presage_log_odd_lines_total", reason=reason)

    for reason in ("ansi", "binary", "long", "multiline", "clock_skew", "bad_timestamp"):
        assert count(reason) == 1, reason
    assert count("no_message") == 1
    assert count("message_is_no_text") == 1
    assert pipeline.metric("presage_log_lines_total", label="blank") == 2
