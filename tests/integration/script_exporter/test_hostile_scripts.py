"""Whatever scripts do, the scrape is whole: judged by the real Prometheus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.endpoints import Endpoint, wait_until
from tests.fixtures.exporter_process import ScriptExporter
from tests.fixtures.hostile_outputs import HOSTILE, ODD
from tests.fixtures.prometheus_stack import Prometheus

WORSE = {
    "hangs": ("sleep 300", "timeout"),
    "ignores signals": ("trap '' TERM INT; while :; do sleep 1; done", "timeout"),
    # Bounded, as the bombs of the unit tests are: these run as root.
    "forks": ("for n in {1..300}; do sleep 300 & done; sleep 300", "processes"),
    "forks away": ("for n in {1..300}; do setsid sleep 300 & done; sleep 300", "processes"),
    "floods": ("head -c 100000000 /dev/zero; sleep 300", "output"),
    "floods lines": ("yes 'a 1' | head -c 100000000", "output"),
    "fails": ("echo 'a 1'; echo no such device >&2; exit 3", "exit"),
    "dies": ("kill -SEGV $$", "signal"),
}
# Prometheus takes these; we are stricter, since it would drop or mistake them later.
STRICTER = {
    "a label of Prometheus' own",
    "a timestamp",
    "a timestamp of the future",
    "too many series",
    "a line of a megabyte",
    "a label of three kilobytes",
    "a hundred labels",
    "a negative counter",
    "a counter that is no number",
    "a bucket without a bound",
    "a histogram as a gauge",
    "a quantile that is none",
    "two types",
    "a series twice",
    "twice, once with an empty label",
    "a metric of the exporter's own",
    "a metric that Prometheus writes",
    "labels without a comma",
    "hexadecimal",
    "an underscore in the number",
    "an unknown escape",
    "an empty label before a comma",
    "a label twice",
    "a type without a name",
    "a type that is none",
    "a NUL in a label",
    "a newline in a label",
    "binary",
}


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptExporter]:
    """Hostile and odd scripts, each under its name, and one that is well."""
    folder = tmp_path_factory.mktemp("hostile")
    collectors = {}
    for kind, outputs in (("hostile", HOSTILE), ("odd", ODD)):
        for number, (name, (output, _)) in enumerate(outputs.items()):
            file = folder / f"{kind}{number}.out"
            file.write_bytes(output)
            script = folder / f"{kind}{number}.sh"
            script.write_text(f"cat {file}\n")
            collectors[name] = {
                "script_path": str(script),
                "script_type": "shell",
                "interval": 3600,
                "max_series": 1000,
                # Odd scripts share the metric `a`, and that is no fault of theirs.
                "labels": {"script": f"{kind}{number}"},
            }
    for number, (name, (text, _)) in enumerate(WORSE.items()):
        script = folder / f"worse{number}.sh"
        script.write_text(text + "\n")
        collectors[name] = {
            "script_path": str(script),
            "script_type": "shell",
            "interval": 8,
            "timeout": 5,
        }
    counter = folder / "well.sh"
    counter.write_text('echo "well_seconds $(date +%s)"\n')
    collectors["well"] = {"script_path": str(counter), "script_type": "shell"}
    with ScriptExporter(folder / "exporter", collectors, max_concurrent=12) as process:
        wait_until(
            lambda: "pending" not in process.health()["collectors"].values(),
            seconds=60,
            what="everything has run once",
        )
        yield process


@pytest.fixture(scope="module")
def prometheus(
    exporter: ScriptExporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    scrape = {"scripts": exporter.target}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), scrape=scrape) as server:
        server.wait_for('count_over_time(up{job="scripts"}[5m]) >= 2')
        yield server


def test_the_scrape_is_whole_and_the_good_script_goes_on(
    exporter: ScriptExporter, prometheus: Prometheus
) -> None:
    assert prometheus.value('min_over_time(up{job="scripts"}[5m])') == 1
    before = prometheus.value("well_seconds")
    prometheus.wait_for(f"well_seconds > {before} + 2")
    prometheus.wait_for('script_runs_total{collector="hangs",result="timeout"} >= 2', seconds=40)
    assert prometheus.value('min_over_time(up{job="scripts"}[5m])') == 1
    assert prometheus.value('script_success{collector="well"}') == 1
    assert prometheus.value("exporter_health_status") == 0
    count = len(HOSTILE) + len(ODD) + len(WORSE) + 1
    assert prometheus.value("collector_count") == count
    assert prometheus.value("count(collector_health_status)") == count


@pytest.mark.parametrize("name", [*HOSTILE, *WORSE])
def test_each_hostile_script_is_told_by_its_reason(prometheus: Prometheus, name: str) -> None:
    reason = (HOSTILE | WORSE)[name][1]
    selector = f'{{collector="{name}"}}'
    assert prometheus.value(f"script_success{selector}") == 0
    assert prometheus.value(f"collector_health_status{selector}") == 0
    assert prometheus.value(f"script_series{selector}") == 0
    told = prometheus.query(f"script_runs_total{selector}")
    assert {series["metric"]["result"] for series in told} == {reason}


@pytest.mark.parametrize("name", ODD)
def test_each_odd_script_arrives_whole(prometheus: Prometheus, name: str) -> None:
    selector = f'{{collector="{name}"}}'
    count = ODD[name][1]
    assert prometheus.value(f"script_success{selector}") == 1
    assert prometheus.value(f"script_series{selector}") == count
    label = f"odd{list(ODD).index(name)}"
    found = prometheus.query(f'{{script="{label}"}}')
    assert len(found) == count


def test_health_names_what_is_wrong(exporter: ScriptExporter) -> None:
    health = exporter.health()
    assert health["status"] == "failed"
    assert health["collectors"]["c:well"] == "ok"
    details = health["details"]
    assert details["c:fails"]["problem"] == "exit code 3: no such device"
    assert details["c:fails"]["stderr_last_line"] == "no such device"
    assert "still running after 5 s" in details["c:hangs"]["problem"]
    assert "more than 64 processes" in details["c:forks"]["problem"]
    assert "more than 2097152 bytes" in details["c:floods"]["problem"]
    page = exporter.get("/").text
    assert "no such device" in page
    assert "<script" not in page
    assert "&lt;html&gt;" in page, "what a script printed is shown, not run"


@pytest.mark.parametrize("names", [sorted(HOSTILE.keys() - STRICTER)])
def test_prometheus_itself_would_refuse_the_whole_scrape(names: list[str], tmp_path: Path) -> None:
    """As with the Go program; what it would take all the same is named in STRICTER."""
    with contextlib.ExitStack() as stack:
        outputs = stack.enter_context(_Raw({f"/{n}": HOSTILE[m][0] for n, m in enumerate(names)}))
        scrape = {
            f"job{number}": {
                "metrics_path": f"/{number}",
                "static_configs": [{"targets": [outputs.target]}],
            }
            for number in range(len(names))
        }
        server = stack.enter_context(Prometheus(tmp_path, scrape=scrape))
        server.wait_for(f"count(up) == {len(names)}")
        server.wait_for("min(count_over_time(up[1m])) >= 2")
        taken = [names[int(one["metric"]["job"][3:])] for one in server.query("up == 1")]
        assert taken == []


class _Raw(Endpoint):
    """Path → the bytes as they are, before a good series."""

    def __init__(self, outputs: dict[str, bytes]) -> None:
        super().__init__(lambda method, path, body: (200, outputs[path] + b"good 1\n"))
