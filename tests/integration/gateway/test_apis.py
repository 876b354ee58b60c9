"""The three APIs before a real tritonserver: the seed's fields, batches, streams, languages."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from clients import LogAnomalyClient, TrainFailureRCAClient
from embedded_triton import EmbeddedServer
from tests.fixtures.gateway_process import APIS, Gateway

Clients = dict[str, httpx.Client]
RAMP = [float(i) for i in range(1, 31)]
LOG = "generating core.2275\n内存不足 out of memory: kill process 4711\nexit code 1"
NDJSON = {"content-type": "application/x-ndjson"}


def test_the_seeds_requests_get_the_seeds_fields(ask: Clients) -> None:
    value = ask["metric_forecast"].post("/predict", json={"series": RAMP}).json()
    assert value["next_value"] == 30.0
    line = ask["log_anomaly"].post("/predict", json={"text": LOG.splitlines()[0]}).json()
    assert line["text"] == LOG.splitlines()[0]
    assert line["result"] in ("异常", "正常")
    causes = ask["train_failure_rca"].post("/predict", json={"text": LOG, "threshold": 0.5}).json()
    assert set(causes["actions"]) == {
        label for label, p in causes["probabilities"].items() if p >= 0.5
    }
    assert all(text.startswith("查看") for text in causes["actions"].values())
    english = ask["train_failure_rca"].post(
        "/predict", json={"text": LOG, "threshold": 0.5}, headers={"accept-language": "en"}
    )
    assert all(text.startswith("look at") for text in english.json()["actions"].values())


def test_save_dir_is_refused_and_says_why(ask: Clients) -> None:
    for api, body in (
        ("metric_forecast", {"series": RAMP}),
        ("log_anomaly", {"text": "x"}),
        ("train_failure_rca", {"text": "x"}),
    ):
        answer = ask[api].post("/predict", json=body | {"save_dir": "/models/../../etc"})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert "must not choose which files" in answer.json()["detail"]


def test_answers_are_those_of_the_clients(ask: Clients, triton: EmbeddedServer) -> None:
    url = f"grpc://{triton.grpc_url}"
    lines = ["generating core.2275", "session opened for user root", "", "内存不足 out of memory"]
    told = ask["log_anomaly"].post("/v1/logs", json={"lines": lines}).json()
    with LogAnomalyClient(url) as client:
        verdicts = client.classify(lines)
    assert [row["label"] for row in told["results"]] == [v.label for v in verdicts]
    for row, verdict in zip(told["results"], verdicts, strict=True):
        if verdict.score == verdict.score:
            assert row["score"] == pytest.approx(verdict.score, abs=1e-6)
    assert told["threshold"] == pytest.approx(verdicts[0].threshold, abs=1e-6)
    body = {"texts": [LOG, "all went well"]}
    found = ask["train_failure_rca"].post("/v1/diagnose", json=body).json()["results"]
    with TrainFailureRCAClient(url) as rca:
        for row, diagnosis in zip(found, rca.diagnose(body["texts"]), strict=True):
            assert row["root"] == diagnosis.root
            assert [c["label"] for c in row["causes"]] == [c.label for c in diagnosis.causes]
            assert [c["evidence"] for c in row["causes"]] == [
                [{"line_number": e.line_number, "text": e.text} for e in c.evidence]
                for c in diagnosis.causes
            ]
            assert all(set(c["action"]) == {"zh", "en"} for c in row["causes"])


def test_forecasts_by_horizon_quantile_step_and_csv(ask: Clients) -> None:
    body = {"series": [RAMP, [1.0, 2.0]], "horizons": ["1h", "12h"], "quantiles": [0.1, 0.9]}
    told = ask["metric_forecast"].post("/v1/forecast", json=body).json()
    good, bad = told["results"]
    assert good["median"] == [30.0, 30.0]
    assert good["quantiles"] == {"0.1": [27.0, 27.0], "0.9": [33.0, 33.0]}
    assert told["horizon_seconds"] == [3600.0, 43200.0]
    assert "too short" in bad["error"]["detail"]
    csv = "timestamp,value\n" + "".join(f"{1700000000 + 60 * i},{i}\n" for i in range(40))
    read = ask["metric_forecast"].post("/v1/forecast", json={"csv": csv, "preset": "next"}).json()
    assert (read["step_seconds"], read["results"][0]["median"]) == (60.0, [39.0])
    wrong = ask["metric_forecast"].post("/v1/forecast", json={"csv": "timestamp,value\n1,x\n"})
    assert wrong.status_code == 422
    assert "csv:2" in wrong.json()["detail"]
    other = ask["metric_forecast"].post("/v1/forecast", json=body | {"horizons": ["13h"]})
    assert other.status_code == 422


def test_ten_thousand_rows_at_once_and_in_order(ask: Clients) -> None:
    series = [[1.0, 2.0, float(i)] for i in range(10_000)]
    body = {"series": series, "preset": "next"}
    told = ask["metric_forecast"].post("/v1/forecast", json=body).json()
    assert [row["median"][0] for row in told["results"]] == [float(i) for i in range(10_000)]
    lines = [f"generating core.{i}" for i in range(10_000)]
    packed = gzip.compress(json.dumps({"lines": lines}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = ask["log_anomaly"].post("/v1/logs", content=packed, headers=headers)
    assert len(answer.json()["results"]) == 10_000
    answer = ask["log_anomaly"].post("/v1/logs", json={"lines": ["x"] * 10_001})
    assert answer.status_code == 413


def lines_of(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


def test_streams_answer_each_line_in_order(ask: Clients) -> None:
    body = b'"generating core.2275"\n\nbroken\n{"text": "session opened"}\n{"wrong": 1}'
    told = lines_of(ask["log_anomaly"].post("/v1/logs", content=body, headers=NDJSON))
    assert [row["line"] for row in told] == [1, 3, 4, 5]
    assert [row.get("error", {}).get("status") for row in told] == [None, 400, None, 422]
    series = "\n".join(
        json.dumps([1, 2, i] if i % 2 else {"series": [1, 2, i], "step_seconds": 60, "preset": p})
        for i, p in enumerate(["next", "12h"] * 20)
    )
    told = lines_of(
        ask["metric_forecast"].post("/v1/forecast", content=series.encode(), headers=NDJSON)
    )
    assert [row["median"][0] for row in told] == [float(i) for i in range(40)]
    logs = f"{json.dumps(LOG)}\n{json.dumps({'text': 'fine', 'threshold': 0.99})}\n".encode()
    told = lines_of(ask["train_failure_rca"].post("/v1/diagnose", content=logs, headers=NDJSON))
    assert told[0]["causes"]
    assert told[1]["line"] == 2


def test_a_stream_answers_before_it_has_ended(gateway: Gateway) -> None:
    """Line by line over a raw connection: the second line is sent once the first is answered."""
    import http.client

    connection = http.client.HTTPConnection(gateway.urls["log_anomaly"][7:], timeout=30)
    connection.putrequest("POST", "/v1/logs")
    connection.putheader("Content-Type", "application/x-ndjson")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()

    def send(line: bytes) -> None:
        connection.send(b"%x\r\n%s\r\n" % (len(line), line))

    send(b'"first"\n')
    response = connection.getresponse()
    assert json.loads(response.readline())["line"] == 1
    send(b'"second"\n')
    assert json.loads(response.readline())["line"] == 2
    connection.send(b"0\r\n\r\n")
    assert response.readline() == b""
    connection.close()


def test_models_say_what_is_served(ask: Clients, triton: EmbeddedServer) -> None:
    told = {row["name"]: row for row in ask["metric_forecast"].get("/v1/models").json()}
    assert {model.name for model in triton.models} <= set(told)
    assert told["log_anomaly"]["state"] == "READY"
    ask["log_anomaly"].post("/predict", json={"text": "x"})
    again = {row["name"]: row for row in ask["log_anomaly"].get("/v1/models").json()}
    assert again["log_anomaly"]["live"]["requests"] > 0
    assert again["log_anomaly"]["live"]["mean_latency_ms"] > 0


def test_alertmanagers_webhook_gets_annotations(ask: Clients) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "TrainingJobFailed", "job_id": "job-42"},
        "annotations": {"log": LOG},
        "startsAt": "2026-01-01T00:00:00Z",
        "fingerprint": "c0ffee",
    }
    silent = {"status": "firing", "labels": {"alertname": "NodeDown", "node": "gpu-7"}}
    over = alert | {"status": "resolved"}
    webhook = {"version": "4", "receiver": "presage", "alerts": [alert, silent, over]}
    told = ask["train_failure_rca"].post("/v1/alertmanager", json=webhook).json()["alerts"]
    assert told[0]["subject"] == "job-42"
    assert told[0]["annotations"]["presage_root_cause"] == told[0]["diagnosis"]["root"]
    assert all(isinstance(value, str) for value in told[0]["annotations"].values())
    assert (told[1]["log"], told[1]["diagnosis"]) == ("none", None)
    assert told[2]["reason"] == "it is over"


@pytest.mark.parametrize("api", APIS)
def test_documents_health_and_metrics(ask: Clients, api: str) -> None:
    client = ask[api]
    client.post("/predict", json={})
    document = client.get("/openapi.json").json()
    assert "/predict" in document["paths"]
    page = client.get("/docs")
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in document["paths"]:
        assert path in page.text
    assert client.get("/readyz").json() == {"status": "ready"}
    metrics = client.get("/metrics").text
    refused = (
        f'presage_web_requests_total{{api="{api}",method="POST",route="/predict",status="422"}}'
    )
    assert refused in metrics
    assert f'presage_web_model_calls_total{{api="{api}"' in metrics
