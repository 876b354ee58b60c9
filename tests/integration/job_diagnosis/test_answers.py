"""What the platform, the SRE and the trainer of the next model get from a running service."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.endpoints import wait_until
from tests.fixtures.jobs_process import JobsProcess
from tests.fixtures.service_process import ROOT
from training.data.row_report import RowReport
from training.data.source import DataSource
from training.train_failure_rca.data import read_seed_files

# The model's weights are random: what matters is that it says the same each time, not what.
LOG = (
    b"step 100 loss 2.1\nkernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus\n"
    b"RuntimeError: CUDA error: unspecified launch failure\n"
)
LARGEST_BYTES = 32 << 20


@pytest.fixture(scope="module")
def service(triton: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all tests here; each has jobs of its own."""
    folder = tmp_path_factory.mktemp("service")
    shared = tmp_path_factory.mktemp("shared")
    (shared / "job.log").write_bytes(LOG)
    flags = ("--files-below", str(shared))
    url = f"sqlite:///{folder}/jobs.sqlite"
    running = JobsProcess(folder, triton.url, url, *flags)
    running.environment["PRESAGE_LARGEST_STREAM_BYTES"] = str(LARGEST_BYTES)
    with running:
        running.shared = shared  # type: ignore[attr-defined]
        yield running


def test_a_failure_is_answered_found_and_counted(service: JobsProcess) -> None:
    facts = {"node": "gpu-17", "user": "li", "cluster": "a", "finished_at": "2026-03-05T01:02:03Z"}
    told = service.fail("found-1", LOG, **facts).json()
    assert (told["status"], told["node"], told["user"]) == ("diagnosed", "gpu-17", "li")
    assert told["causes"][0]["root"]
    assert told["root"] == told["causes"][0]["label"]
    assert set(told["causes"][0]["action"]) == {"zh", "en"}
    line = told["causes"][0]["evidence"][0]
    assert line["text"] == LOG.decode().split("\n")[line["line_number"] - 1]
    assert sum(cause["root"] for cause in told["causes"]) == 1

    service.wait_stored(1, cluster="a")
    (kept,) = service.get("/v1/jobs/found-1")["results"]
    assert {**kept, "verdicts": None} == {**told, "verdicts": None}
    assert service.results(node="gpu-17") == [told]
    assert service.results(q="FALLEN off", cause=told["causes"][-1]["label"], user="li") == [told]
    for other in ({"node": "gpu-1"}, {"q": "fallen%off"}, {"unknown": "true"}, {"until": "1h"}):
        expected = [told] if other == {"until": "1h"} else []
        assert service.results(cluster="a", **other) == expected
    assert service.results(since="2026-03-05T01:02:04Z", cluster="a") == []

    trend = service.get("/v1/trends", by="cause,day", cluster="a")["rows"]
    assert {(row["cause"], row["day"], row["count"]) for row in trend} == {
        (cause["label"], "2026-03-05", 1) for cause in told["causes"]
    }
    assert service.get("/v1/trends", by="node", cluster="a")["rows"] == [
        {"node": "gpu-17", "count": 1}
    ]
    name = "presage_jobs_node_causes_total"
    assert service.metric(name, node="gpu-17", cause=told["root"]) == 1


def test_pages_follow_each_other(service: JobsProcess) -> None:
    for number in range(5):
        service.fail(f"page-{number}", LOG, cluster="pages")
    service.wait_stored(5, cluster="pages")
    first = service.get("/v1/jobs", cluster="pages", limit=2)
    assert [one["job_id"] for one in first["results"]] == ["page-4", "page-3"]
    second = service.get("/v1/jobs", cluster="pages", limit=3, cursor=first["next_cursor"])
    assert [one["job_id"] for one in second["results"]] == ["page-2", "page-1", "page-0"]
    assert second["next_cursor"] is None


def test_the_same_log_again_has_the_same_answer_and_no_second_diagnosis(
    service: JobsProcess,
) -> None:
    before = service.metric("presage_web_model_rows_total")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.fail("again", LOG), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    replayed = [answer for answer in answers if "idempotency-replayed" in answer.headers]
    assert len(replayed) == 7
    assert service.metric("presage_web_model_rows_total") == before + 1
    assert (
        service.fail("again", LOG + b"more\n").json()["result_id"] != answers[0].json()["result_id"]
    )


def test_however_a_log_comes_it_is_the_same_log(service: JobsProcess) -> None:
    expected = service.fail("way-plain", LOG).json()
    rows = [
        {"message": text, "kubernetes": {"node": {"name": "gpu-9"}}}
        for text in LOG.decode().splitlines()
    ]
    documents = "".join(json.dumps(row) + "\n" for row in rows)
    reference = {"source": "file", "path": str(service.shared / "job.log")}  # type: ignore[attr-defined]
    json_type = {"Content-Type": "application/json"}
    ways = {
        "gzip file": service.fail("way-1", gzip.compress(LOG)),
        "two members": service.fail("way-2", gzip.compress(LOG[:50]) + gzip.compress(LOG[50:])),
        "encoding": service.fail("way-3", gzip.compress(LOG), headers={"Content-Encoding": "gzip"}),
        "documents": service.fail(
            "way-4", documents, headers={"Content-Type": "application/x-ndjson"}
        ),
        "reference": service.fail("way-5", json.dumps(reference), headers=json_type),
        "form": service.fail(
            "way-6", LOG, headers={"Content-Type": "application/x-www-form-urlencoded"}
        ),
        "text": service.fail("way-7", LOG, headers={"Content-Type": "text/plain"}),
    }
    for way, answer in ways.items():
        assert answer.status_code == 200, (way, answer.text)
        assert answer.json()["causes"] == expected["causes"], way
    assert ways["documents"].json()["node"] == "gpu-9"
    assert ways["reference"].json()["source"] == "file"
    assert ways["gzip file"].json()["log_sha256"] == expected["log_sha256"]


def test_headers_say_what_the_query_does_not(service: JobsProcess) -> None:
    headers = {"Presage-Node": "gpu-1", "Presage-User": "wang", "Presage-Started-At": "1767225600"}
    told = service.fail("headers", LOG, headers=headers, node="gpu-2").json()
    assert (told["node"], told["user"]) == ("gpu-2", "wang")
    assert told["started_at"].startswith("2026-01-01T00:00:00")


BOMB = gzip.compress(b"A" * (1 << 20)) * (LARGEST_BYTES // (1 << 20) + 1)


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("bad/failure", {"content": b""}, 422, "empty_log"),
        ("bad/failure", {"content": b" \n\t\0 \xe3\x80\x80\n"}, 422, "empty_log"),
        ("bad/failure", {"content": bytes(range(256)) * 500}, 422, "binary_log"),
        ("bad/failure", {"content": b"\x89PNG\r\n\x1a\n" + bytes(900)}, 422, "binary_log"),
        ("bad/failure", {"content": gzip.compress(LOG)[:-9]}, 400, "body"),
        ("bad/failure", {"content": b"\x1f\x8bnot gzip"}, 400, "body"),
        ("bad/failure", {"content": BOMB}, 413, "body_size"),
        (
            "bad/failure",
            {"content": BOMB, "headers": {"Content-Encoding": "gzip"}},
            413,
            "body_size",
        ),
        (
            "bad/failure",
            {"content": LOG, "headers": {"Content-Type": "multipart/form-data"}},
            415,
            "content_type",
        ),
        ("bad/failure", {"content": LOG, "headers": {"Content-Encoding": "br"}}, 415, "encoding"),
        ("bad/failure?nodes=x", {"content": LOG}, 422, "input"),
        ("bad/failure?node=a%0Ab", {"content": LOG}, 422, "input"),
        ("bad/failure?started_at=soon", {"content": LOG}, 422, "input"),
        ("bad/failure?finished_at=2199-01-01", {"content": LOG}, 422, "input"),
        ("bad%20id/failure", {"content": LOG}, 422, "input"),
        (f"{'x' * 201}/failure", {"content": LOG}, 422, "input"),
        ("bad/failure", {"json": {"source": "ftp"}}, 422, "input"),
        ("bad/failure", {"json": {"source": "file", "path": "/etc/passwd"}}, 422, "input"),
        ("bad/failure", {"json": {"source": "kubernetes", "pod": "p"}}, 422, "source"),
        ("bad/failure", {"json": {"source": "file", "path": "x" * (2 << 20)}}, 413, "body_size"),
        (
            "bad/failure",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "body",
        ),
        (
            "bad/failure",
            {"content": LOG, "headers": {"Origin": "https://evil.example"}},
            403,
            "forbidden",
        ),
        ("never-seen/verdict", {"json": {"verdict": "right"}}, 404, "unknown_job"),
        ("never-seen/verdict", {"json": {"verdict": "maybe"}}, 422, "input"),
    ],
)
def test_bad_input_is_refused_by_name_and_counted(
    service: JobsProcess, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    counted = service.metric("presage_web_refused_total", reason=code)
    answer = service.http.post(f"/v1/jobs/{path}", **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    # Counted when the rest of what was sent is read over.
    wait_until(
        lambda: service.metric("presage_web_refused_total", reason=code) == counted + 1,
        what=f"{code} counted",
    )
    assert "Traceback" not in service.log()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/jobs/never-seen", 404),
        ("/v1/jobs?cursor=abc", 422),
        ("/v1/jobs?limit=0", 422),
        ("/v1/jobs?cuase=OOM", 422),
        ("/v1/trends?by=hour", 422),
        ("/v1/trends?by=day,day", 422),
        ("/v1/report?since=x", 422),
    ],
)
def test_questions_that_make_no_sense(service: JobsProcess, path: str, status: int) -> None:
    answer = service.http.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_odd_logs_are_answered(service: JobsProcess) -> None:
    odd = {
        "invalid": b"\xff\xfe oops\nRuntimeError: CUDA error\xff\n",
        "nul": LOG.replace(b" ", b"\0", 3),
        "crlf": LOG.replace(b"\n", b"\r\n"),
        "endless": b"RuntimeError " * 60_000,
        "chinese": "训练失败：显存不足\n".encode(),
    }
    for name, log in odd.items():
        answer = service.fail(f"odd-{name}", log)
        assert answer.status_code == 200, (name, answer.text)
        assert service.get(f"/v1/jobs/odd-{name}")["results"]


def test_html_is_kept_as_it_is_and_no_browser_runs_it(service: JobsProcess) -> None:
    script = "RuntimeError: <script>alert(1)</script> CUDA error fallen off the bus"
    answer = service.fail("html", script + "\n", user="<b>li</b>")
    assert answer.json()["user"] == "<b>li</b>"
    shown = service.http.get("/v1/jobs/html")
    assert script in json.dumps(shown.json(), ensure_ascii=False)
    assert shown.headers["content-type"] == "application/json"
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_no_secret_of_a_log_is_kept_anywhere(service: JobsProcess) -> None:
    secrets = [b"hunter2hunter2", b"ghp_" + b"a1B2" * 9, b"AKIA" + b"Z7" * 8, b"s3cr3t-in-url"]
    log = b"\n".join(
        [
            b"RuntimeError: CUDA error password=" + secrets[0],
            b"fatal: Authentication failed with " + secrets[1],
            b'error {"aws": "' + secrets[2] + b'"}',
            b"error: cannot open postgres://me:" + secrets[3] + b"@db/x",
        ]
    )
    told = service.fail("secret", log, user="x password=" + secrets[0].decode())
    assert told.status_code == 200
    assert b"[masked]" in told.content
    later = service.http.post(
        "/v1/jobs/secret/verdict",
        json={"verdict": "right", "note": "token " + secrets[1].decode()},
    )
    assert later.status_code == 201
    exported = service.http.get("/v1/verdicts.tsv")
    everything = (
        told.content
        + later.content
        + service.http.get("/v1/jobs/secret").content
        + exported.content
        + service.http.get("/metrics").content
        + service.text_at_rest()
    )
    for secret in secrets:
        assert secret not in everything
    assert service.metric("presage_jobs_secrets_masked_total") >= len(secrets)


def test_verdicts_teach_the_next_model_and_judge_this_one(
    make_service: Callable[..., JobsProcess], tmp_path: Path
) -> None:
    service = make_service().start()
    labels = list(
        service.fail("right", LOG + b"tab\there \\n back\r\nslash").json()["probabilities"]
    )
    wrong = service.fail("wrong", LOG + b"1").json()
    service.fail("open", LOG + b"2")
    service.wait_stored(3)
    said = [cause["label"] for cause in wrong["causes"]]
    true = [label for label in labels if label not in said][:1] + said[:1]

    def judge(job: str, status: int = 201, **verdict: Any) -> Any:
        answer = service.http.post(f"/v1/jobs/{job}/verdict", json=verdict)
        assert answer.status_code == status, answer.text
        return answer.json()

    judge("right", verdict="wrong", labels=["OOM"], by="somebody too quick")
    judge("right", verdict="right", note="<b>yes</b>", by="li")
    judge("wrong", verdict="wrong", labels=true)
    judge("open", verdict="wrong")
    judge("open", 422, verdict="wrong", labels=["Bad_Luck"])
    judge("wrong", 422, verdict="right", labels=true)
    (kept,) = service.get("/v1/jobs/right")["results"]
    assert [one["verdict"] for one in kept["verdicts"]] == ["right", "wrong"]

    exported = service.http.get("/v1/verdicts.tsv")
    file = tmp_path / "verdicts.tsv"
    command = [sys.executable, "-m", "services", "job_diagnosis", "verdicts", "--output", str(file)]
    database = service.environment["PRESAGE_JOBS_DATABASE_URL"]
    subprocess.run([*command, "--database-url", database], cwd=ROOT, check=True)
    assert file.read_bytes() == exported.content
    logs, _ = read_seed_files(DataSource(file, "file"), RowReport())
    assert [log.text for log in logs] == [
        (LOG + b"tab\there \\n back\nslash").decode(),
        (LOG + b"1").decode(),
    ]
    assert logs[0].labels == {cause["label"] for cause in kept["causes"]}
    assert logs[1].labels == set(true)

    figures = service.get("/v1/report")
    assert (figures["diagnosed"], figures["verdicts"], figures["labelled"]) == (3, 3, 2)
    assert figures["right_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["root_share"] == 0.5
    hits = len(kept["causes"]) + 1
    total = 2 * len(kept["causes"]) + len(said) + 2
    assert figures["micro_f1"] == pytest.approx(2 * hits / total, abs=1e-4)
    assert figures["by_model_version"]["1"]["verdicts"] == 3
    now = datetime.now(UTC).isoformat()
    assert service.get("/v1/report", since=now)["verdicts"] == 0


def test_without_a_token_it_starts_on_this_machine_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services", "job_diagnosis", "--spool", str(tmp_path)]
    for flags, word in ((["--no-tokens", "--host", "0.0.0.0"], "loopback"), ([], "tokens")):
        result = subprocess.run(
            [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, word in result.stderr) == (2, True), result.stderr
