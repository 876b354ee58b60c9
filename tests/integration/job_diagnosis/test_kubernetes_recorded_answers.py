"""The official Kubernetes client against answers as the API's documentation gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    ConfigError,
    InputError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
)
from services.job_diagnosis.evidence import JobEvidence, KubernetesReference
from services.job_diagnosis.sources.retrying import Deadline
from services.job_diagnosis.sources.settings import SourceSettings, make_sources
from tests.fixtures.recorded_kubernetes import (
    RUNNING,
    Apiserver,
    status,
    terminated,
    write_kubeconfig,
)
from tests.fixtures.recorded_server import Answer, RecordedServer


@pytest.fixture
def apiserver() -> Apiserver:
    return Apiserver()


Ask = Callable[..., JobEvidence]


@pytest.fixture
def ask(apiserver: Apiserver, tmp_path: Path) -> Iterator[Ask]:
    with RecordedServer(apiserver.respond) as server:

        def fetch(settings: dict[str, Any] | None = None, **named: Any) -> JobEvidence:
            kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.url)
            values = {"kubernetes": str(kubeconfig), **(settings or {})}
            source = make_sources(SourceSettings(**values))["kubernetes"]
            source._make_deadline = lambda what, seconds: Deadline(  # type: ignore[attr-defined]
                what, seconds, sleep=lambda _: None
            )
            reference = {"source": "kubernetes", "namespace": "ml", "pod": "train-7", **named}
            return source.fetch(KubernetesReference.model_validate(reference))

        yield fetch


def text(evidence: JobEvidence) -> str:
    return b"".join(evidence.log).decode()


def test_a_container_that_was_started_again(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container(
        "main", state=RUNNING, lastState=terminated(137, "OOMKilled"), restartCount=2
    )
    apiserver.logs = {("main", True): "显存 old run\n".encode(), ("main", False): b"new run\n"}
    apiserver.events = [
        {
            "type": "Warning",
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "data"\n : timed out',
            "lastTimestamp": "2026-11-28T09:02:00Z",
            "count": 3,
            "source": {"component": "kubelet"},
        },
        {
            "type": "Warning",
            "reason": "FailedScheduling",
            "message": "0/8 nodes are available: 8 Insufficient nvidia.com/gpu.",
            "eventTime": "2026-11-28T09:01:00.000000Z",
            "series": {"count": 7, "lastObservedTime": "2026-11-28T09:01:30Z"},
            "reportingComponent": "default-scheduler",
        },
        {"type": "Normal", "reason": "Pulled", "message": "Successfully pulled image"},
    ]
    evidence = ask()
    assert text(evidence) == "显存 old run\n"
    assert evidence.extra == (
        "Container main:  Last State: Terminated  Reason: OOMKilled  Exit Code: 137  "
        "Restart Count: 2",
        "Warning  FailedScheduling (x7)  default-scheduler  "
        "0/8 nodes are available: 8 Insufficient nvidia.com/gpu.",
        'Warning  FailedMount (x3)  kubelet  MountVolume.SetUp failed for volume "data" : '
        "timed out",
    )
    assert (evidence.node, evidence.user) == ("gpu-7", "ann")


def test_a_job_that_ended(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: ephemeral-storage.",
    }
    apiserver.container("main", state=terminated(1, "Error", message="the end\nof the log"))
    apiserver.logs = {("main", False): b"Traceback\n"}
    evidence = ask()
    assert text(evidence) == "Traceback\n"
    assert evidence.extra == (
        "Status: Failed  Reason: Evicted  "
        "Message: The node was low on resource: ephemeral-storage.",
        "Container main:  Last State: Terminated  Reason: Error  Exit Code: 1  "
        "Message: the end of the log",
    )


def test_the_first_that_failed_of_several_containers(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("fetch", init=True, state=terminated(0, "Completed"))
    apiserver.container("prepare", init=True, state=terminated(2, "Error"))
    apiserver.container("main", state={"waiting": {"reason": "PodInitializing"}})
    apiserver.container("sidecar", state=RUNNING)
    apiserver.logs = {("prepare", False): b"no such dataset\n", ("sidecar", False): b"fine\n"}
    evidence = ask()
    assert text(evidence) == "no such dataset\n"
    assert evidence.extra == (
        "Init Container prepare:  Last State: Terminated  Reason: Error  Exit Code: 2",
    )
    assert text(ask(container="sidecar")) == "fine\n"
    with pytest.raises(InputError, match="no such container") as raised:
        ask(container="other")
    assert "prepare or main or sidecar" in str(raised.value)


def test_an_image_that_never_came_has_no_log(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.status = {"phase": "Pending"}
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "a/b:c"'}
    apiserver.container("main", state={"waiting": waiting})
    apiserver.events = [{"type": "Warning", "reason": "Failed", "message": "manifest unknown"}]
    evidence = ask()
    assert text(evidence) == ""
    assert evidence.extra == (
        "Container main:  State: Waiting  Reason: ImagePullBackOff  "
        'Message: Back-off pulling image "a/b:c"',
        "Warning  Failed  manifest unknown",
    )


def test_the_previous_log_that_is_gone(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("main", state=RUNNING, lastState=terminated(1, "Error"))
    apiserver.logs = {("main", False): b"new run\n"}
    assert text(ask()) == "new run\n"


def test_a_pod_that_was_preempted(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("main", state=terminated(143, "Error", signal=15))
    apiserver.status["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "PodFailed"},
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
    ]
    assert ask().extra == (
        "Condition: DisruptionTarget=True  Reason: PreemptionByScheduler",
        "Container main:  Last State: Terminated  Reason: Error  Exit Code: 143  Signal: 15",
    )


def test_a_log_that_breaks_off_is_asked_for_again(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("main", state=terminated(1, "Error"))
    whole = b"".join(b"line %d\n" % n for n in range(20_000))
    apiserver.logs = {("main", False): whole}
    apiserver.faults["log"] = [Answer(200, whole, break_after=100_000), status(503, "x", "busy")]
    assert text(ask()).encode() == whole
    apiserver.faults["log"] = [Answer(200, whole, break_after=100_000)] * 4
    with pytest.raises(ServerUnavailableError, match="reached"):
        ask()


def test_of_a_huge_log_the_end(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("main", state=terminated(1, "Error"))
    apiserver.logs = {("main", False): b"".join(b"line %07d\n" % n for n in range(60_000))}
    found = text(ask(settings={"source_largest_bytes": 1 << 18}))
    assert found.endswith("line 0059999\n")
    assert (1 << 17) <= len(found) <= (1 << 18) + (1 << 16)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (status(404, "NotFound", 'pods "train-7" not found'), InputError, "gone"),
        (status(403, "Forbidden", "cannot get resource pods"), ServerAnswerError, "account"),
        (status(401, "Unauthorized", "Unauthorized"), ServerAnswerError, "account"),
        (status(500, "InternalError", "etcd"), ServerUnavailableError, "busy"),
        (Answer(200, b"<html>"), ServerAnswerError, "not an answer"),
        (Answer(200, b"[]"), ServerAnswerError, "not an answer"),
        (Answer(200, hangs=True), ServerUnavailableError, "reached"),
    ],
)
def test_refusals_are_typed(
    apiserver: Apiserver, ask: Ask, answer: Answer, error: type[PresageError], says: str
) -> None:
    apiserver.faults["train-7"] = [answer] * 4
    with pytest.raises(error, match=says):
        ask(settings={"source_request_seconds": 0.3} if answer.hangs else None)


def test_events_that_may_not_be_read_are_done_without(apiserver: Apiserver, ask: Ask) -> None:
    apiserver.container("main", state=terminated(1, "Error"))
    apiserver.logs = {("main", False): b"x\n"}
    apiserver.faults["events"] = [status(403, "Forbidden", "cannot list resource events")]
    assert text(ask()) == "x\n"


@pytest.mark.parametrize(
    "named", [{"pod": "../../secrets"}, {"pod": "A"}, {"namespace": "a/b"}, {"container": "x y"}]
)
def test_a_name_that_is_none(apiserver: Apiserver, ask: Ask, named: dict[str, str]) -> None:
    with pytest.raises(InputError, match="name of Kubernetes"):
        ask(**named)


def test_only_the_namespaces_of_the_settings(apiserver: Apiserver, ask: Ask) -> None:
    with pytest.raises(InputError, match="not for reading"):
        ask(settings={"kubernetes_namespaces": ("ml",)}, namespace="kube-system")


def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    for where in (str(tmp_path / "none"), "in-cluster"):
        with pytest.raises(ConfigError, match="cannot be set up"):
            make_sources(SourceSettings(kubernetes=where))
