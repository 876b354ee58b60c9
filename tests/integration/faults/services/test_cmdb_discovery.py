"""CMDB discovery without its CMDB: the last good targets hold, their age is told; hung scripts."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.endpoints import Endpoint, wait_until
from tests.fixtures.exporter_process import CmdbDiscovery, ScriptExporter
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.steady_asker import SteadyAsker, size_of
from tests.integration.faults.conftest import Promise
from tests.integration.faults.services.conftest import LONG_SECONDS, SHORT_SECONDS, WAYS, long

AGE = "cmdb_discovery_answer_age_seconds"


@pytest.mark.promise(
    fault="CMDB discovery: the CMDB's network is lost",
    promise="Prometheus is answered the last good targets at once; fresh within 5 s after",
)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [long("black_hole", SHORT_SECONDS), *(long(way, LONG_SECONDS) for way in (*WAYS, "flap"))],
)
def test_cmdb_lost(way: Any, seconds: float, tmp_path: Path, promise: Promise) -> None:
    hosts = [{"name": f"gpu-{n}", "address": f"10.0.0.{n}"} for n in range(50)]
    body = json.dumps(hosts).encode()
    with Endpoint(lambda *_: (200, body)) as cmdb, FaultProxy(cmdb.target) as proxy:
        settings = {
            "cmdb": {
                "url": f"http://{proxy.address}/hosts",
                "interval": 1,
                "timeout": 2,
                "fields": {"name": "name", "address": "address"},
            },
            "assignments": [{"run": ["disk"]}],
        }
        with CmdbDiscovery(tmp_path, settings, 5535) as discovery:
            wait_until(lambda: discovery.get("/sd").status_code == 200, seconds=10)
            right = discovery.get("/sd").json()
            with SteadyAsker(lambda _: discovery.get("/sd")) as asker:
                if way == "flap":
                    proxy.flap(seconds)
                else:
                    proxy.set(way)
                    time.sleep(seconds)
                    if way == "refuse":
                        assert discovery.metric(AGE) > seconds - 2
                    proxy.set("pass")
            ended = time.monotonic()
            for one in asker.asked:
                assert one.error is None, one
                assert one.answer.json() == right
                assert one.seconds < 2.0
            wait_until(lambda: discovery.metric(AGE) < 1.5, seconds=60, what="a fresh answer")
            took = time.monotonic() - ended
            promise.measured(
                f"{way} {seconds:g} s: {len(asker.asked)} right answers, fresh {took:.1f} s after"
            )
            assert took < promise.limit_seconds(5.0)


@pytest.mark.promise(
    fault="script exporter: every script hangs for 30 s",
    promise="scrapes go on at once and say so; right again within 5 s; no process left",
)
@pytest.mark.slow
def test_scripts_hang(tmp_path: Path, promise: Promise) -> None:
    switch = tmp_path / "hang"
    script = tmp_path / "script.sh"
    script.write_text(f'[ -e {switch} ] && sleep 300\necho "disk_ok{{disk=\\"$1\\"}} 1"\n')
    given = {"script_type": "shell", "script_path": str(script), "timeout": 2, "max_age": 6}
    collectors = {f"disk{n}": {**given, "args": [str(n)]} for n in range(4)}
    with ScriptExporter(tmp_path, collectors) as exporter:
        assert exporter.pid is not None

        def ok() -> int:
            lines = exporter.get().text.splitlines()
            return sum(line.startswith("disk_ok") and line.endswith(" 1") for line in lines)

        wait_until(lambda: ok() == 4, seconds=20, what="all scripts run well")
        before = size_of(exporter.pid)
        switch.touch()
        with SteadyAsker(lambda _: exporter.get()) as asker:
            time.sleep(LONG_SECONDS)
            during = ok()
            switch.unlink()
        ended = time.monotonic()
        wait_until(lambda: ok() == 4, seconds=30, what="right again")
        took = time.monotonic() - ended
        assert all(one.answer.status_code == 200 and one.seconds < 2.0 for one in asker.asked)
        assert during == 0, "older than max_age"
        after = size_of(exporter.pid)
        assert after.threads <= before.threads + 4
        assert after.descriptors <= before.descriptors + 8
        assert math.isfinite(took)
        promise.measured(f"{len(asker.asked)} scrapes; right again {took:.1f} s after")
        assert took < promise.limit_seconds(5.0)
