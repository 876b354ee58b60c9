"""The supervisor's HTTP endpoint, over a real socket."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import ServerSetupError
from embedded_triton.health import Health, ModelState
from embedded_triton.supervisor_http import SupervisorEndpoint
from embedded_triton.supervisor_metrics import SupervisorMetrics


class Served:
    def __init__(self) -> None:
        self.metrics = SupervisorMetrics(clock=lambda: 1_700_000_000.0)
        self.health = Health(["double", "log_anomaly"], self.metrics)
        supervisor = SimpleNamespace(metrics=self.metrics, health=self.health)
        self.endpoint = SupervisorEndpoint(supervisor, 0)  # type: ignore[arg-type]

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://{self.endpoint.url}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.endpoint.close()


def test_ready_only_while_every_model_answers(served: Served) -> None:
    assert served.get("/readyz") == (200, "ready\n")
    served.health.set("double", ModelState.RESTARTING, "process killed")
    assert served.get("/readyz") == (503, "double: restarting (process killed)\n")
    assert served.get("/readyz/double")[0] == 503
    assert served.get("/readyz/log_anomaly")[0] == 200
    assert served.get("/livez")[0] == 200
    served.health.set("double", ModelState.UP)
    served.health.server_down("stopped")
    assert served.get("/readyz") == (503, "tritonserver: stopped\n")
    assert served.get("/readyz/log_anomaly")[0] == 503
    served.health.server_up()
    assert served.get("/readyz", "HEAD") == (200, "")


def test_unknown_paths_and_models_are_404(served: Served) -> None:
    assert served.get("/readyz/nobody")[0] == 404
    assert served.get("/")[0] == 404


def test_metrics_are_prometheus_text(served: Served) -> None:
    served.metrics.restarted("double", "process killed")
    served.metrics.restarted("double", "model.onnx: one of many error texts")
    served.metrics.crash_loop("double")
    families = {
        sample.name: sample
        for family in text_string_to_metric_families(served.get("/metrics")[1])
        for sample in family.samples
        if sample.labels.get("cause") in {None, "does not load"}
    }
    restarts = families["presage_supervisor_restarts_total"]
    assert restarts.labels == {"model": "double", "cause": "does not load"}
    assert families["presage_supervisor_last_restart_timestamp_seconds"].value == 1_700_000_000
    assert families["presage_supervisor_crash_loops_total"].value == 1
    assert families["presage_supervisor_ready"].value == 1


def test_status_is_json(served: Served) -> None:
    served.health.set("double", ModelState.BROKEN, "stays down")
    document = json.loads(served.get("/status")[1])
    assert document["ready"] is False
    assert document["models"]["double"] == {"state": "broken", "reason": "stays down"}


def test_a_taken_port_is_named(served: Served) -> None:
    port = int(served.endpoint.url.rsplit(":", 1)[1])
    with pytest.raises(ServerSetupError, match=f"port {port} is taken"):
        SupervisorEndpoint(SimpleNamespace(), port)  # type: ignore[arg-type]
