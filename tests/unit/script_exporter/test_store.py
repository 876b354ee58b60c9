"""The last good output stays, with its age; whoever would break the page is kept off it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from script_exporter.config import Collector, CollectorSettings
from script_exporter.process import Reason, RunResult
from script_exporter.store import Store


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def collector(name: str, **settings: object) -> Collector:
    return Collector(
        "c", name, ("x",), CollectorSettings.model_validate(settings), 60.0, 30.0, 300.0
    )


def result(output: bytes = b"", reason: Reason = "ok", **more: object) -> RunResult:
    given = {"stderr_lines": 0, "stderr_last": "", "exit_code": 0, "detail": ""} | more
    return RunResult(reason=reason, stdout=output, stderr_bytes=0, duration_seconds=0.5, **given)


def store_of(*collectors: Collector, limit: int = 1000) -> tuple[Store, Clock]:
    clock = Clock()
    store = Store(limit, clock)
    store.configure(collectors, limit)
    return store, clock


def values(store: Store) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(store.page()):
        for sample in family.samples:
            name = sample.labels.get("collector", "")
            end = sample.labels.get("result", "")
            found["/".join(filter(None, (sample.name, name, end)))] = sample.value
    return found


def test_a_failure_leaves_the_last_good_output_with_its_age() -> None:
    a = collector("a")
    store, clock = store_of(a)
    assert "script_success/a" not in values(store), "nothing is known before the first run"
    assert store.health()["collectors"] == {"c:a": "pending"}
    assert store.finished(a, result(b"gpu 55\n")) == ""
    clock.now += 60
    assert "line 2" in store.finished(a, result(b"gpu 55\nError: x\n"))
    found = values(store)
    assert found["gpu"] == 55
    assert found["script_success/a"] == found["collector_health_status/a"] == 0
    assert found["exporter_health_status"] == 0
    assert found["script_output_age_seconds/a"] == 60
    assert found["script_last_success_timestamp_seconds/a"] == 1000
    assert found["script_runs_total/a/ok"] == found["script_runs_total/a/invalid"] == 1
    store.finished(a, result(b"gpu 56\n"))
    found = values(store)
    assert (found["gpu"], found["script_success/a"], found["exporter_health_status"]) == (56, 1, 1)


def test_output_that_is_too_old_is_shown_no_more() -> None:
    a = collector("a")
    store, clock = store_of(a)
    store.finished(a, result(b"gpu 55\n"))
    clock.now += 301
    store.finished(a, result(reason="timeout", exit_code=-9, detail="still running"))
    found = values(store)
    assert "gpu" not in found
    assert "script_output_age_seconds/a" not in found
    assert found["script_last_success_timestamp_seconds/a"] == 1000
    assert found["script_series/a"] == 0
    assert found["script_exit_code/a"] == 137


def test_a_series_of_another_collector_is_refused_and_named() -> None:
    a, b = collector("a"), collector("b")
    store, _ = store_of(a, b)
    store.finished(a, result(b'gpu{n="0"} 1\n'))
    problem = store.finished(b, result(b'gpu{n="1"} 1\ngpu{n="0"} 2\n'))
    assert "exposed by c:a" in problem
    assert store.finished(b, result(b'gpu{n="1"} 1\n')) == "", "another series of it is no trouble"
    assert values(store)["script_runs_total/b/duplicate"] == 1


def test_labels_tell_two_clusters_of_one_script_apart() -> None:
    a, b = collector("a"), collector("b", labels={"site": "2"})
    store, _ = store_of(a, b)
    assert store.finished(a, result(b"gpu 1\n")) == ""
    assert store.finished(b, result(b"gpu 2\n")) == ""
    assert 'gpu 1\ngpu{site="2"} 2\n' in store.page()


def test_two_types_of_one_metric_are_refused() -> None:
    a, b = collector("a"), collector("b")
    store, _ = store_of(a, b)
    store.finished(a, result(b'# TYPE gpu gauge\ngpu{n="0"} 1\n'))
    problem = store.finished(b, result(b'# TYPE gpu counter\ngpu{n="1"} 1\n'))
    assert problem == "gpu is a gauge in c:a"


def test_our_own_names_are_refused() -> None:
    a = collector("a")
    store, _ = store_of(a)
    for name in ("up", "script_success", "collector_count", "script_exporter_anything"):
        assert "own" in store.finished(a, result(f"{name} 1\n".encode())), name
    histogram = b"# TYPE script histogram\nscript_success_count 1\n# TYPE up summary\nup_sum 1\n"
    assert "own" in store.finished(a, result(histogram))


def test_all_collectors_together_have_a_limit() -> None:
    a, b = collector("a"), collector("b", max_series=3)
    store, _ = store_of(a, b, limit=4)
    store.finished(a, result(b"x 1\ny 1\n"))
    assert "5 series of all collectors" in store.finished(b, result(b"p 1\nq 1\nr 1\n"))
    assert "more than 3 series" in store.finished(b, result(b"p 1\nq 1\nr 1\ns 1\n"))
    assert store.finished(b, result(b"p 1\nq 1\n")) == ""


def test_health_tells_why_and_the_last_words() -> None:
    a, b = collector("a"), collector("b")
    store, _ = store_of(a, b)
    store.finished(a, result(b"gpu 1\n", stderr_lines=3, stderr_last="warming up"))
    failed = {"exit_code": 2, "detail": "exit code 2", "stderr_last": "no such device"}
    store.finished(b, result(reason="exit", **failed))
    health = store.health()
    assert health["status"] == "failed"
    assert health["collectors"] == {"c:a": "ok", "c:b": "failed"}
    details = health["details"]
    assert details["c:a"]["stderr_last_line"] == "warming up"
    assert details["c:a"]["stderr_lines"] == 3
    assert details["c:b"]["problem"] == "exit code 2: no such device"
    assert values(store)["script_stderr_lines_total/a"] == 3


def test_a_reload_keeps_what_stays_and_forgets_what_goes() -> None:
    a, b = collector("a"), collector("b")
    store, _ = store_of(a, b)
    store.finished(a, result(b"x 1\n"))
    store.finished(b, result(b"y 1\n"))
    changed = collector("a", args=["-v"])
    store.configure([changed], 1000)
    found = values(store)
    assert found["x"] == 1
    assert "y" not in found
    assert found["collector_count"] == 1
    assert store.finished(a, result(b"x 2\n")) == ""
    assert values(store)["x"] == 1, "what the old definition printed counts no more"
    store.finished(changed, result(b"x 3\n"))
    assert values(store)["x"] == 3


def test_skipped_runs_are_counted() -> None:
    a = collector("a")
    store, _ = store_of(a)
    store.skipped(a, 2)
    store.skipped(collector("gone"), 2)
    assert values(store)["script_skipped_total/a"] == 2
