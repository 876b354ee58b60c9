"""The whole service: a pod by reference, its diagnosis told at a webhook and a mail server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fixtures.endpoints import Endpoint, wait_until
from tests.fixtures.jobs_process import JobsProcess
from tests.fixtures.recorded_kubernetes import Apiserver, terminated, write_kubeconfig
from tests.fixtures.recorded_server import RecordedServer
from tests.integration.job_diagnosis.conftest import Triton

SECRET = "AKIAIOSFODNN7EXAMPLE"


def test_a_pod_by_reference_is_told_to_its_user_with_recorded_answers(
    triton: Triton, tmp_path: Path
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    def receive(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        told.append((path, json.loads(body)))
        return 200, b""

    apiserver = Apiserver()
    apiserver.container("main", state=terminated(137, "OOMKilled"))
    apiserver.logs = {("main", False): f"step 1\nkey {SECRET} @all\nstep 2\n".encode() * 5}
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/job.log").write_text("RuntimeError: CUDA error\n")
    notify = tmp_path / "notify.toml"
    with Endpoint(receive) as chat, RecordedServer(apiserver.respond) as server:
        notify.write_text(
            f'outbox = "{tmp_path}/outbox.sqlite"\n[[channel]]\nname = "user"\n'
            f'audience = "user"\nurl = "json://{chat.target}/{{user}}"\n'
        )
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        with JobsProcess(
            tmp_path / "service",
            triton.url,
            f"sqlite:///{tmp_path}/service/jobs.sqlite",
            *("--kubernetes", str(kubeconfig), "--files-below", str(tmp_path / "logs")),
            *("--notify-config", str(notify), "--job-url", "https://presage.example/{job_id}"),
        ) as jobs:
            pod = {"source": "kubernetes", "namespace": "ml", "pod": "train-7"}
            answer = jobs.http.post("/v1/jobs/train-7/failure", json=pod)
            assert answer.status_code in (200, 201), answer.text
            result = answer.json()
            assert (result["node"], result["user"]) == ("gpu-7", "ann")
            file = {"source": "file", "path": "job.log"}
            assert jobs.http.post("/v1/jobs/f/failure", json=file).status_code in (200, 201)
            beside = {"source": "file", "path": "../notify.toml"}
            assert jobs.http.post("/v1/jobs/g/failure", json=beside).status_code == 422
            gone = {**pod, "pod": "train-8"}
            assert jobs.http.post("/v1/jobs/h/failure", json=gone).status_code == 422
            assert result["unknown"] or result["root"], "the tiny model sees no failure in it"
            wait_until(lambda: told, what=f"the user is told\n{jobs.log()}")
            assert jobs.metric("presage_notify_notifications_total", channel="user") >= 1
            assert jobs.stop() == 0
    path, message = told[0]
    assert path == "/ann"
    assert "job: train-7" in message["message"]
    assert "https://presage.example/train-7" in message["message"]
    assert SECRET not in json.dumps(told)
    for file_at_rest in tmp_path.glob("outbox.sqlite*"):
        assert SECRET.encode() not in file_at_rest.read_bytes()
