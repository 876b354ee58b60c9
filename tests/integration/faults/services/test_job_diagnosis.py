"""Job diagnosis without its database, its model server, or both: what is accepted is answered
rightly and stored once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from clients import Diagnosis, TrainFailureRCAClient
from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import wait_until
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.jobs_process import JobsProcess
from tests.fixtures.postgresql import PostgreSQL
from tests.fixtures.steady_asker import Asked, SteadyAsker, size_of
from tests.fixtures.toy_model import LINES
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import (
    LONG_SECONDS,
    SHORT_SECONDS,
    WAYS,
    MortalServer,
    long,
)

DEADLINE_SECONDS = 5.0
RECOVERY_SECONDS = 15.0
# A question to the server that the network forgot is asked again after its ping's time.
FORGOTTEN_SECONDS = 25.0


def log_of(number: int) -> str:
    return f"step {number}\n{LINES[number % len(LINES)]} {number}\n"


class Desk:
    """The service, what it was asked, and what it must answer."""

    def __init__(self, service: JobsProcess, database_url: str, server: EmbeddedServer) -> None:
        self.service = service
        self._engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
        self._server = server
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=8)
        self.http = httpx.Client(base_url=service.url, timeout=90, limits=limits, trust_env=False)

    def close(self) -> None:
        self._engine.dispose()
        self.http.close()

    def ask(self, number: int) -> httpx.Response:
        return self.http.post(
            f"/v1/jobs/job-{number}/failure",
            content=log_of(number),
            headers={"x-request-timeout": str(DEADLINE_SECONDS)},
        )

    def stored(self) -> list[tuple[str, str | None]]:
        """Job and root in the database's order; asked past the proxy."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT job_id, root FROM results ORDER BY seq"))
            return [(str(job), root) for job, root in rows]

    def expected(self, numbers: list[int]) -> dict[int, Diagnosis]:
        with TrainFailureRCAClient(f"grpc://{self._server.grpc_url}") as client:
            found = client.diagnose([log_of(number) for number in numbers])
        return dict(zip(numbers, found, strict=True))

    def check(self, asked: list[Asked]) -> Counter[str]:
        """All were accepted, in time, and answered rightly where they were answered."""
        seen: Counter[str] = Counter()
        expected = self.expected([one.number for one in asked])
        for one in asked:
            assert one.error is None, one
            answer: httpx.Response = one.answer
            seen[str(answer.status_code)] += 1
            assert one.seconds < DEADLINE_SECONDS + 4.0, (one, answer.text)
            assert answer.status_code in (200, 202), answer.text
            if answer.status_code == 202:
                assert int(answer.headers["retry-after"]) > 0
                continue
            told, right = answer.json(), expected[one.number]
            assert told["job_id"] == f"job-{one.number}"
            assert told["root"] == right.root
            assert [c["label"] for c in told["causes"]] == [c.label for c in right.causes]
            assert told["model_version"] == right.model_version
        return seen

    def wait_stored(self, asked: list[Asked], seconds: float) -> float:
        """Seconds until all accepted are in the database: each once, with its own root."""
        began = time.monotonic()
        names = {f"job-{one.number}" for one in asked}
        wait_until(
            lambda: names <= {job for job, _ in self.stored()},
            seconds=seconds,
            what=f"all of {len(names)} stored\n{self.service.log()}",
        )
        took = time.monotonic() - began
        rows = self.stored()
        assert len(rows) == len(set(rows)) == len({job for job, _ in rows})
        expected = self.expected([one.number for one in asked])
        right = {f"job-{number}": found.root for number, found in expected.items()}
        assert {job: root for job, root in rows if job in right} == right
        assert self.service.metric("presage_jobs_set_aside_total") == 0
        assert not list(self.service.spool.glob("accepted/*.log"))
        return took


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    return postgresql.make_database()


@pytest.fixture
def database_proxy(database: str) -> Iterator[FaultProxy]:
    with FaultProxy(database.rpartition("@")[2].partition("/")[0]) as proxy:
        yield proxy


@pytest.fixture
def make_desk(
    tiny_server: EmbeddedServer, database: str, database_proxy: FaultProxy, tmp_path: Path
) -> Iterator[Callable[[str], Desk]]:
    made: list[Desk] = []

    def make(triton: str) -> Desk:
        head, _, rest = database.rpartition("@")
        url = f"{head}@{database_proxy.address}/{rest.partition('/')[2]}"
        service = JobsProcess(tmp_path / "service", f"grpc://{triton}", url)
        made.append(Desk(service.start(), database, tiny_server))
        return made[-1]

    yield make
    for desk in made:
        desk.close()
        desk.service.kill()


@pytest.mark.promise(
    fault="job diagnosis: its database's network is lost",
    promise="every failure diagnosed at once and rightly, stored once when it is back; no 500",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [
        ("refuse", SHORT_SECONDS),
        long("black_hole", SHORT_SECONDS),
        *(long(way, LONG_SECONDS) for way in (*WAYS, "flap")),
    ],
)
def test_database_lost(
    way: Any,
    seconds: float,
    make_desk: Callable[[str], Desk],
    database_proxy: FaultProxy,
    tiny_server: EmbeddedServer,
    promise: Promise,
) -> None:
    desk = make_desk(tiny_server.grpc_url)
    assert desk.ask(0).status_code == 200
    with SteadyAsker(desk.ask) as asker:
        if way == "flap":
            database_proxy.flap(seconds)
        else:
            database_proxy.set(way)
            asker.burst(30)
            end = time.monotonic() + seconds
            if way in ("refuse", "black_hole", "reset"):
                refused = desk.http.get("/v1/jobs")
                assert refused.status_code == 503, refused.text
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.headers["content-type"] == "application/problem+json"
            assert desk.http.get("/readyz").status_code == 200
            time.sleep(max(0.0, end - time.monotonic()))
            database_proxy.set("pass")
    seen = desk.check(asker.asked)
    took = desk.wait_stored(asker.asked, 60)
    promise.measured(f"{way} {seconds:g} s: {dict(seen)}; all stored {took:.1f} s after")
    assert took < promise.limit_seconds(RECOVERY_SECONDS)


@pytest.mark.promise(
    fault="job diagnosis: the network of its model server is lost",
    promise="every failure accepted within the caller's deadline, diagnosed rightly afterwards",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [long("refuse", SHORT_SECONDS), *(long(way, LONG_SECONDS) for way in (*WAYS, "flap"))],
)
def test_server_lost(
    way: Any,
    seconds: float,
    make_desk: Callable[[str], Desk],
    triton_proxy: FaultProxy,
    promise: Promise,
) -> None:
    desk = make_desk(triton_proxy.address)
    assert desk.ask(0).status_code == 200
    with SteadyAsker(desk.ask) as asker:
        if way == "flap":
            triton_proxy.flap(seconds)
        else:
            triton_proxy.set(way)
            asker.burst(20)
            time.sleep(seconds)
            triton_proxy.set("pass")
    seen = desk.check(asker.asked)
    took = desk.wait_stored(asker.asked, 120)
    promise.measured(f"{way} {seconds:g} s: {dict(seen)}; all stored {took:.1f} s after")
    limit = FORGOTTEN_SECONDS if way == "black_hole" else RECOVERY_SECONDS
    assert took < promise.limit_seconds(limit)


@pytest.mark.promise(
    fault="job diagnosis: database and model server lost at once, one after the other back",
    promise="every failure accepted, diagnosed rightly and stored once",
)
@pytest.mark.slow
@pytest.mark.parametrize("way", ["refuse", "black_hole"])
def test_both_lost(
    way: Any,
    make_desk: Callable[[str], Desk],
    triton_proxy: FaultProxy,
    database_proxy: FaultProxy,
    promise: Promise,
) -> None:
    desk = make_desk(triton_proxy.address)
    with SteadyAsker(desk.ask) as asker:
        triton_proxy.set(way)
        database_proxy.set(way)
        asker.burst(20)
        time.sleep(LONG_SECONDS)
        assert desk.http.get("/v1/jobs/nobody").status_code == 503
        triton_proxy.set("pass")
        time.sleep(5.0)
        database_proxy.set("pass")
    seen = desk.check(asker.asked)
    took = desk.wait_stored(asker.asked, 120)
    promise.measured(f"{way} 30 s: {dict(seen)}; all stored {took:.1f} s after")
    assert took < promise.limit_seconds(FORGOTTEN_SECONDS)


@pytest.mark.promise(
    fault="job diagnosis: PostgreSQL killed and restarted, tritonserver kill -9 and back",
    promise="every failure accepted, diagnosed rightly and stored once",
)
@pytest.mark.slow
def test_servers_killed(
    make_desk: Callable[[str], Desk],
    mortal_server: MortalServer,
    postgresql: PostgreSQL,
    promise: Promise,
) -> None:
    desk = make_desk(mortal_server.address)
    with SteadyAsker(desk.ask) as asker:
        time.sleep(1.0)
        postgresql.kill()
        try:
            time.sleep(LONG_SECONDS / 2)
            mortal_server.kill()
            asker.burst(20)
            time.sleep(LONG_SECONDS / 2)
        finally:
            postgresql.start()
        time.sleep(LONG_SECONDS / 2)
        mortal_server.start()
    seen = desk.check(asker.asked)
    took = desk.wait_stored(asker.asked, 120)
    promise.measured(f"{dict(seen)}; all stored {took:.1f} s after")
    assert took < promise.limit_seconds(RECOVERY_SECONDS)


@pytest.mark.promise(
    fault="job diagnosis: SIGTERM while database and model server say nothing",
    promise="ends within 35 s, and the next start has everything",
)
@pytest.mark.slow
def test_sigterm_in_a_black_hole(
    make_desk: Callable[[str], Desk],
    triton_proxy: FaultProxy,
    database_proxy: FaultProxy,
    promise: Promise,
) -> None:
    desk = make_desk(triton_proxy.address)
    assert desk.ask(0).status_code == 200
    triton_proxy.set("black_hole")
    database_proxy.set("black_hole")
    asked = []
    with SteadyAsker(desk.ask) as asker:
        asker.burst(10)
        time.sleep(2.0)
        asked = list(range(1, 11))
        began = time.monotonic()
        code = desk.service.stop()
        took = time.monotonic() - began
    assert code == 0, desk.service.log()
    kept = [
        one for one in asker.asked if one.error is None and one.answer.status_code in (200, 202)
    ]
    assert len(kept) >= len(asked)
    triton_proxy.set("pass")
    database_proxy.set("pass")
    desk.service.start()
    desk.wait_stored(kept, 60)
    promise.measured(f"ended {took:.1f} s after SIGTERM, {len(kept)} accepted, all stored")
    assert took < promise.limit_seconds(35.0)


@pytest.mark.promise(
    fault="job diagnosis: six outages of database and server in a row",
    promise="memory, descriptors and threads as before",
)
@pytest.mark.slow
def test_outages_in_a_row_cost_nothing(
    make_desk: Callable[[str], Desk],
    triton_proxy: FaultProxy,
    database_proxy: FaultProxy,
    promise: Promise,
) -> None:
    desk = make_desk(triton_proxy.address)
    sizes = []
    number = 0
    for way in ("black_hole", "refuse", "reset", "stall", "refuse", "black_hole"):
        with SteadyAsker(desk.ask, _number=number) as asker:
            for proxy in (triton_proxy, database_proxy):
                asker.burst(10)
                proxy.cut(way, 4.0)  # type: ignore[arg-type]
        number += len(asker.asked)
        desk.check(asker.asked)
        desk.wait_stored(asker.asked, 90)
        time.sleep(11.0)  # idle workers of a burst end after ten seconds
        sizes.append(size_of(desk.service.pid))
    first, last = sizes[0], sizes[-1]
    promise.measured(f"{first} after the first, {last} after the sixth")
    assert last.memory_bytes < first.memory_bytes * 1.15
    assert last.descriptors <= first.descriptors + 20
    assert last.threads <= first.threads + 8
