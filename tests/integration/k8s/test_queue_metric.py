"""What the HPA scales on: the adapter's queries, by a real Prometheus on synthesised counters.

That the real server has counters of these names is tested in test_probe.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.fixtures import manifests
from tests.fixtures import prometheus_stack as stack

START = 1_800_000_000
STEP = 15
# Minutes after the start at which each state has lasted for longer than the query looks back.
IDLE, ONE_FULL, ALL_FULL, NOTHING_FINISHES = 4, 9, 14, 19


def _rates(minute: float, pod: str) -> tuple[float, float, float]:
    """Requests/s, seconds in the queue of each, pending requests."""
    if minute < 5:
        return 0.0, 0.0, 0.0
    if minute < 10:
        # Keep-alive pinned all callers to the first pod; the others are as good as idle.
        return (99.0, 0.4, 40.0) if pod == "triton-0" else (0.5, 0.001, 0.0)
    if minute < 15:
        return 50.0, 0.2, 10.0
    return 0.0, 0.0, 300.0


def _openmetrics() -> Iterator[str]:
    samples: dict[str, list[str]] = {"queue": [], "success": [], "pending": []}
    for pod in ("triton-0", "triton-1", "triton-2"):
        for model, share in (("log_anomaly", 1.0), ("metric_forecast_next", 0.0)):
            for namespace in ("presage", "somebody-else"):
                labels = f'{{model="{model}",pod="{pod}",namespace="{namespace}"}}'
                queue_us = success = 0.0
                for tick in range(0, 20 * 60 // STEP):
                    per_second, seconds, pending = _rates(tick * STEP / 60, pod)
                    if namespace == "somebody-else":
                        per_second, seconds, pending = 100.0, 9.0, 999.0
                    elif share == 0.0:
                        # Another model, busy and never queued: it must not dilute the worst.
                        per_second, seconds, pending = per_second * 20, 0.0001, 0.0
                    success += per_second * STEP
                    queue_us += per_second * STEP * seconds * 1e6
                    at = START + tick * STEP
                    samples["queue"].append(
                        f"nv_inference_queue_duration_us_total{labels} {queue_us} {at}"
                    )
                    samples["success"].append(
                        f"nv_inference_request_success_total{labels} {success} {at}"
                    )
                    samples["pending"].append(
                        f"nv_inference_pending_request_count{labels} {pending} {at}"
                    )
    yield "# TYPE nv_inference_queue_duration_us gauge\n"
    yield from (line.replace("_us_total", "_us") + "\n" for line in samples["queue"])
    yield "# TYPE nv_inference_request_success gauge\n"
    yield from (line.replace("success_total", "success") + "\n" for line in samples["success"])
    yield "# TYPE nv_inference_pending_request_count gauge\n"
    yield from (line + "\n" for line in samples["pending"])
    yield "# EOF\n"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Prometheus]:
    folder = tmp_path_factory.mktemp("adapter")
    recorded = folder / "counters.txt"
    recorded.write_text("".join(_openmetrics()))
    server = stack.Prometheus(folder / "prometheus", flags=["--storage.tsdb.retention.time=100y"])
    subprocess.run(
        [
            stack.program("promtool"),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            recorded,
            server.data,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with server as running:
        yield running


def _ask(prometheus: stack.Prometheus, query: str, minute: float) -> float:
    # One value and no labels: the HPA takes nothing else.
    (row,) = prometheus.query(query, at=START + minute * 60)
    assert row["metric"] == {}
    return float(row["value"][1])


def test_the_queue_is_a_ratio_of_sums_of_the_worst_model(prometheus: stack.Prometheus) -> None:
    query = manifests.adapter_queries()["presage_triton_queue_seconds"]
    # Nothing asked: 0, not NaN, which an HPA cannot use.
    assert _ask(prometheus, query, IDLE) == 0.0
    # One pod full: (99·0.4 + 2·0.5·0.001) / 100 = 0.396 s.
    assert _ask(prometheus, query, ONE_FULL) == pytest.approx(0.396, rel=0.01)
    assert _ask(prometheus, query, ALL_FULL) == pytest.approx(0.2, rel=0.01)
    assert _ask(prometheus, query, NOTHING_FINISHES) == 0.0


def test_a_mean_of_means_would_hide_the_full_pod(prometheus: stack.Prometheus) -> None:
    """Why the rule is written as it is: the usual ways say a third, or a twentieth."""
    selector = '{namespace="presage",model="log_anomaly"}[2m]'
    mean_of_means = (
        f"avg(rate(nv_inference_queue_duration_us{selector})"
        f" / rate(nv_inference_request_success{selector})) / 1e6"
    )
    assert _ask(prometheus, mean_of_means, ONE_FULL) < 0.14
    selector = '{namespace="presage"}[2m]'
    over_all_models = (
        f"sum(rate(nv_inference_queue_duration_us{selector}))"
        f" / sum(rate(nv_inference_request_success{selector})) / 1e6"
    )
    assert _ask(prometheus, over_all_models, ONE_FULL) < 0.03


def test_a_server_that_finishes_nothing_shows_in_pending_requests(
    prometheus: stack.Prometheus,
) -> None:
    query = manifests.adapter_queries()["presage_triton_pending_requests"]
    assert _ask(prometheus, query, IDLE) == 0.0
    assert _ask(prometheus, query, NOTHING_FINISHES) == 900.0


def test_the_hpa_asks_for_what_the_adapter_offers() -> None:
    for overlay in ("cpu", "kserve"):
        documents = manifests.kustomize(manifests.K8S / "overlays" / overlay)
        hpa = manifests.find(documents, "HorizontalPodAutoscaler", "triton")
        asked = [m["external"]["metric"]["name"] for m in hpa["spec"]["metrics"]]
        assert asked == list(manifests.adapter_queries())
        assert hpa["spec"]["metrics"][0]["external"]["target"]["type"] == "Value"
