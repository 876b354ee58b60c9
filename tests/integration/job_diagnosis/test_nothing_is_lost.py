"""Killed, without its model server, without its database: what was acknowledged is there in the
end, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.fixtures.endpoints import wait_until
from tests.fixtures.jobs_process import JobsProcess

MakeService = Callable[..., JobsProcess]


def log_of(number: int) -> bytes:
    return f"step {number}\nRuntimeError: CUDA error fallen off the bus {number}\n".encode()


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [result["job_id"] for result in results]


def test_without_the_model_server_failures_are_accepted_and_diagnosed_later(
    make_service: MakeService, own_triton: Any
) -> None:
    own_triton.stop()
    service = make_service(triton_url=own_triton.url).start()
    answers = [service.fail(f"job-{number}", log_of(number)) for number in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    told = answers[0]
    assert told.json()["status"] == "accepted"
    assert told.headers["location"] == "/v1/jobs/job-0"
    assert int(told.headers["retry-after"]) > 0
    again = service.fail("job-0", log_of(0))
    assert (again.status_code, again.json()) == (202, told.json())
    waiting = service.get("/v1/jobs/job-0")
    assert (waiting["results"], waiting["waiting"][0]["status"]) == ([], "accepted")
    wait_until(lambda: service.metric("presage_jobs_errors_total", step="diagnose"))

    service.kill()
    own_triton.start()
    service.start()
    service.wait_stored(3)
    assert sorted(ids(service.results())) == ["job-0", "job-1", "job-2"]
    replay = service.fail("job-0", log_of(0))
    assert (replay.status_code, replay.headers["idempotency-replayed"]) == (200, "true")
    assert service.get("/v1/jobs/job-0")["waiting"] == []
    assert service.stop() == 0


def test_who_does_not_want_to_wait_is_answered_at_once(make_service: MakeService) -> None:
    service = make_service().start()
    answer = service.fail("later", log_of(1), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    service.wait_stored(1)
    same = service.fail("later", log_of(1))
    assert (same.status_code, same.json()["result_id"]) == (200, answer.json()["result_id"])


def test_a_full_queue_refuses_and_says_when_to_come_again(
    make_service: MakeService, own_triton: Any
) -> None:
    own_triton.stop()
    service = make_service(triton_url=own_triton.url)
    service.environment["PRESAGE_JOBS_SPOOL_LIMIT_BYTES"] = str(1 << 20)
    service.start()
    large = b"RuntimeError: out of memory\n" * 20_000
    answers = [service.fail(f"job-{number}", large) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 429, 429]
    assert int(answers[1].headers["retry-after"]) > 0
    assert answers[1].json()["code"] == "overloaded"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kill_9_in_the_middle_of_a_storm(
    make_service: MakeService, request: pytest.FixtureRequest, kind: str
) -> None:
    url = ""
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").make_database()
    service = make_service(database_url=url).start()
    acknowledged: list[str] = []

    def send(number: int) -> None:
        try:
            answer = service.fail(f"job-{number}", log_of(number))
        except httpx.HTTPError:
            return
        if answer.status_code in (200, 202):
            acknowledged.append(f"job-{number}")

    for round_start in (0, 100):
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(send, number) for number in range(round_start, round_start + 100)]
            wait_until(lambda start=round_start: len(acknowledged) >= start // 4 + 20)
            service.kill()
            for job in jobs:
                job.result()
        service.start()
    assert len(acknowledged) >= 40
    wait_until(lambda: not list(service.spool.glob("accepted/*.log")), seconds=60)
    wait_until(
        lambda: set(acknowledged) <= set(ids(service.results(limit=200))),
        seconds=60,
        what=f"all of {len(acknowledged)} stored",
    )
    counts = Counter(result["result_id"] for result in service.results(limit=200))
    assert set(counts.values()) == {1}
    assert service.metric("presage_jobs_set_aside_total") == 0


def test_without_the_database_answers_go_out_and_storage_catches_up_in_order(
    make_service: MakeService, postgresql: Any
) -> None:
    url = postgresql.make_database()
    service = make_service(database_url=url).start()
    before = service.fail("before", log_of(0)).json()
    service.wait_stored(1)
    postgresql.stop()
    try:
        answers = [service.fail(f"job-{number}", log_of(number)) for number in range(1, 6)]
        assert {answer.status_code for answer in answers} == {200}
        again = service.fail("job-1", log_of(1))
        assert (again.content, again.headers["idempotency-replayed"]) == (
            answers[0].content,
            "true",
        )
        assert ids(service.get("/v1/jobs/job-2")["results"]) == ["job-2"]
        refused = service.http.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        judged = service.http.post("/v1/jobs/job-1/verdict", json={"verdict": "right"})
        assert judged.status_code == 503
        assert service.http.get("/v1/verdicts.tsv").status_code == 503
        assert service.http.get("/readyz").status_code == 200
        wait_until(lambda: service.metric("presage_jobs_errors_total", step="store"))
        # Killed and started without it: what waits is still known.
        service.kill()
        service.start()
        answers.append(service.fail("job-6", log_of(6)))
        assert ids(service.get("/v1/jobs/job-3")["results"]) == ["job-3"]
    finally:
        postgresql.start()
    service.wait_stored(7, seconds=60)
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        stored = list(connection.execute(sa.text("SELECT job_id FROM results ORDER BY seq")))
    engine.dispose()
    assert [job for (job,) in stored] == ["before", *(f"job-{number}" for number in range(1, 7))]
    assert service.fail("before", log_of(0)).json() == before
    assert service.stop() == 0
