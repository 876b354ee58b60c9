"""Every pod keeps to every rule, and each rule notices when it is broken."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures.manifests import Document, Pod, find, pods
from tests.unit.k8s import rules

_ASKS_THE_API_SERVER = ("job-logs", "job-diagnosis")
"""Composition and pod: the only one that may hold a token of the API server."""


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_pod_keeps_to_it(
    everything: dict[str, list[Document]], rule: Callable[[Pod], list[str]]
) -> None:
    found = {
        f"{where}: {fault}"
        for where, documents in everything.items()
        for pod in pods(documents)
        if not (
            rule is rules.holds_no_token_of_the_api_server
            and (where, pod.name) == _ASKS_THE_API_SERVER
        )
        for fault in rule(pod)
    }
    assert found == set()


def _main(spec: Document) -> Any:
    return spec["containers"][0]


BREAK: dict[str, Callable[[Document], Any]] = {
    "runs_as_somebody_else_than_root": lambda s: s["securityContext"].update(runAsUser=0),
    "has_the_runtimes_seccomp_profile": lambda s: s["securityContext"].pop("seccompProfile"),
    "writes_nothing_into_its_image": lambda s: _main(s)["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "has_no_capabilities": lambda s: _main(s)["securityContext"]["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
    "shares_no_namespace_of_the_host": lambda s: s.update(hostNetwork=True),
    "says_what_it_needs": lambda s: _main(s)["resources"]["limits"].pop("memory"),
    "is_probed": lambda s: _main(s).pop("livenessProbe"),
    "names_an_exact_image": lambda s: _main(s).update(image="registry:5000/presage/triton"),
    "bounds_what_it_writes": lambda s: s["volumes"][-1].update(emptyDir={}),
    "has_secrets_by_reference_only": lambda s: _main(s)["args"].append("--api-key=abc"),
    "mounts_secrets_below_run_secrets": lambda s: _main(s)["volumeMounts"][0].update(
        mountPath="/app/secrets"
    ),
    "mounts_only_volumes_that_are_there": lambda s: s["volumes"].pop(),
    "drains_before_it_is_killed": lambda s: s.update(terminationGracePeriodSeconds=3),
    "holds_no_token_of_the_api_server": lambda s: s.pop("automountServiceAccountToken"),
}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_rule_notices(
    rendered: dict[str, list[Document]], rule: Callable[[Pod], list[str]]
) -> None:
    (pod,) = (p for p in pods(rendered["gpu"]) if p.name == "metric-forecast")
    broken = dataclasses.replace(pod, spec=copy.deepcopy(pod.spec))
    assert rule(broken) == []
    BREAK[rule.__name__](broken.spec)
    assert rule(broken)


def test_nothing_is_a_secret_itself(everything: dict[str, list[Document]]) -> None:
    for documents in everything.values():
        assert "Secret" not in {document["kind"] for document in documents}


def test_a_tag_is_set_for_every_image_of_ours(everything: dict[str, list[Document]]) -> None:
    images = {
        container["image"]
        for documents in everything.values()
        for pod in pods(documents)
        for container in pod.containers
    }
    ours = {image for image in images if image.startswith("presage/")}
    assert {image.split(":")[1] for image in ours} == {"0.1.0"}
    assert images - ours == {"rclone/rclone:1.68.2"}
    assert {image.split(":")[0].removeprefix("presage/") for image in ours} == {
        *("triton", "triton-cpu", "metric-forecast", "log-anomaly", "train-failure-rca"),
        *("forecast-loop", "log-pipeline", "job-diagnosis", "script-exporter"),
    }


def test_whatever_has_two_replicas_survives_a_drain(overlay: list[Document]) -> None:
    budgets = [d["spec"] for d in overlay if d["kind"] == "PodDisruptionBudget"]
    several = [
        d
        for d in overlay
        if d["kind"] in {"Deployment", "StatefulSet"} and d["spec"]["replicas"] > 1
    ]
    assert several
    for document in several:
        labels = document["spec"]["template"]["metadata"]["labels"]
        (budget,) = (b for b in budgets if b["selector"]["matchLabels"].items() <= labels.items())
        assert budget["maxUnavailable"] == 1
        spread = document["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {s["topologyKey"] for s in spread} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        for constraint in spread:
            assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()


def test_one_loop_and_one_job_service_at_a_time(overlay: list[Document]) -> None:
    for name in ("forecast-loop", "job-diagnosis"):
        assert find(overlay, "StatefulSet", name)["spec"]["replicas"] == 1


def test_python_models_have_shared_memory(overlay: list[Document]) -> None:
    (pod,) = (p for p in pods(overlay) if p.labels.get("presage.io/triton"))
    (volume,) = (v for v in pod.spec["volumes"] if v["name"] == "shm")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    mounts = {m["mountPath"]: m["name"] for m in pod.main["volumeMounts"]}
    assert mounts["/dev/shm"] == "shm"


def test_models_are_mounted_read_only_where_they_are_served(
    everything: dict[str, list[Document]],
) -> None:
    for where in ("cpu", "gpu", "s3", "s3-cpu"):
        (pod,) = (p for p in pods(everything[where]) if p.name == "triton")
        (mount,) = (m for m in pod.main["volumeMounts"] if m["mountPath"] == "/models")
        assert mount["readOnly"] is True


@pytest.mark.parametrize("where", ["s3", "s3-cpu"])
def test_what_came_over_the_network_is_checked_after_it_came(
    composed: dict[str, list[Document]], where: str
) -> None:
    (pod,) = (p for p in pods(composed[where]) if p.name == "triton")
    assert [c["name"] for c in pod.spec["initContainers"]] == [
        "fetch-repository",
        "verify-repository",
    ]
