"""A diagnosis that blames hardware, at a real webhook and a real Alertmanager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.job_diagnosis.notices import NoticeSettings, make_notices
from tests.fixtures.endpoints import Endpoint, Webhook, wait_until
from tests.fixtures.job_record import cause, record
from tests.fixtures.prometheus_stack import Alertmanager


def test_hardware_to_blame(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def receive(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        told.append(json.loads(body))
        return 200, b""

    path = tmp_path / "notify.toml"
    registry = CollectorRegistry()
    with (
        Endpoint(receive) as chat,
        Webhook() as webhook,
        Alertmanager(tmp_path / "alertmanager", webhook=webhook.url) as alertmanager,
    ):
        path.write_text(
            f'outbox = "{tmp_path}/outbox.sqlite"\n[alertmanager]\nurl = "{alertmanager.url}"\n'
            f'[[channel]]\nname = "duty"\naudience = "sre"\nurl = "json://{chat.target}"\n'
        )
        notices = make_notices(NoticeSettings(notify_config=path), registry)
        try:
            notices.announce(
                record(cause("Network_Link_Flap", "mlx5_3: link down"), device="mlx5_3")
            )
            notices.announce(record(cause("Model_Code_Error", "KeyError: 7"), job_id="job-8"))
            alert = webhook.wait_for("TrainingHardwareFault", node="gpu-7", device="mlx5_3")
            wait_until(lambda: told, what="the duty channel is told")
        finally:
            notices.close()
    assert alert["labels"]["cause"] == "Network_Link_Flap"
    assert "网络链路抖动" in alert["annotations"]["summary_zh"]
    assert len(told) == 1
    assert "10: mlx5_3: link down" in told[0]["message"]
    metric = "presage_notify_told_total"
    assert registry.get_sample_value(metric, {"channel": "duty"}) == 1
    assert registry.get_sample_value(metric, {"channel": "alertmanager"}) == 1
