"""A diagnosed alert's notification: one of a firing, with a link that cannot break a message."""

from __future__ import annotations

import pytest

from clients import Cause, Diagnosis, EvidenceLine
from services.gateway.alertmanager import DiagnosedAlert
from services.gateway.notifying import notification_fields, plain_link

ACTION = {"zh": "换卡", "en": "swap"}
CAUSE = Cause("GPU_Hardware_Fault", 0.97, (EvidenceLine(2, " Xid 79 "),), ACTION)
DIAGNOSIS = Diagnosis([CAUSE], CAUSE.label, False, {CAUSE.label: 0.97}, "4")
ALERT = DiagnosedAlert(
    "TrainingJobFailed",
    "job-7",
    "c0ffee",
    {"node": "gpu-7", "user": "mei"},
    {},
    "http://prometheus.example/graph?g0.expr=rate(x[5m])",
    DIAGNOSIS,
)


def test_what_a_notification_says() -> None:
    fields = notification_fields(ALERT)
    assert fields["cause"] == "GPU_Hardware_Fault"
    assert (fields["subject"], fields["node"], fields["user"]) == ("job-7", "gpu-7", "mei")
    assert fields["evidence"] == ["2: Xid 79"]
    assert fields["action"] == {"zh": "换卡", "en": "swap"}
    assert fields["key"] == "c0ffee\nGPU_Hardware_Fault"
    assert fields["link"] == "http://prometheus.example/graph?g0.expr=rate%28x%5B5m%5D%29"


@pytest.mark.parametrize(
    "link", ["", "javascript:alert(1)", "file:///etc/passwd", "http://a b", "http://" + "a" * 3000]
)
def test_what_is_no_link_is_left_out(link: str) -> None:
    assert plain_link(link) == ""
