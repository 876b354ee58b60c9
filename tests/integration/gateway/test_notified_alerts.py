"""Alertmanager's webhook in, a diagnosis out at a real webhook of a notification channel."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from embedded_triton import EmbeddedServer
from tests.fixtures.endpoints import Endpoint, wait_until
from tests.fixtures.gateway_process import gateway_process

pytest.importorskip("services.notify.notifier")
LOG = "generating core.2275\n内存不足 out of memory: kill process 4711\nexit code 1"


def test_a_firing_alert_is_told_once(triton: EmbeddedServer, tmp_path: Path) -> None:
    told: list[str] = []

    def respond(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        told.append(body.decode())
        return 200, b""

    alert = {
        "status": "firing",
        "labels": {"alertname": "TrainingJobFailed", "job_id": "job-42", "node": "gpu-7"},
        "annotations": {"log": LOG},
        "fingerprint": "c0ffee",
    }
    with Endpoint(respond) as hook:
        config = tmp_path / "notify.toml"
        config.write_text(
            f'outbox = "{tmp_path}/outbox.sqlite"\n[[channel]]\nname = "hook"\n'
            f'url = "json://{hook.target}/"\naudience = "user"\n'
            'minimum_severity = "info"\ngroup_minutes = 0\n'
        )
        words = ("train_failure_rca", "--no-tokens", "--port=0", f"--notify-config={config}")
        with gateway_process(tmp_path / "run", f"grpc://{triton.grpc_url}", *words) as gateway:
            url = f"{gateway.urls['train_failure_rca']}/v1/alertmanager"
            webhook = {"version": "4", "alerts": [alert]}
            for _ in range(2):
                [answer] = httpx.post(url, json=webhook, timeout=30).json()["alerts"]
                assert answer["notified"] is True
            wait_until(lambda: told, what="the channel is told")
            other = alert | {"fingerprint": "beef", "labels": alert["labels"] | {"job_id": "j-43"}}
            httpx.post(url, json={"alerts": [other]}, timeout=30)
            wait_until(lambda: any("j-43" in one for one in told), what="the other one is told")
    # The other came after the repeated one, which had its turn before.
    assert sum("job-42" in json.dumps(one) for one in told) == 1
    assert answer["annotations"]["presage_root_cause"] in told[0]
