"""NetworkPolicies: everything is shut, and every way that a program needs is open."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from services.notify.config import NotifyConfig
from tests.fixtures.manifests import ROOT, Document, Pod, find, pods


def _policies(documents: list[Document], pod: Pod) -> list[Document]:
    return [
        d["spec"]
        for d in documents
        if d["kind"] == "NetworkPolicy"
        and d["metadata"]["namespace"] == pod.namespace
        and d["spec"]["podSelector"].get("matchLabels", {}).items() <= pod.labels.items()
    ]


def _ports(pod: Pod, rule: Document) -> set[int]:
    """What a rule's ports are on this pod, names resolved."""
    named = {p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", [])}
    numbers = {named.get(port["port"], port["port"]) for port in rule.get("ports", [])}
    return {number for number in numbers if isinstance(number, int)}


def _incoming(documents: list[Document], pod: Pod, peer: str) -> set[int]:
    """Ports of the pod that are open to whoever carries the label ``peer``."""
    return {
        port
        for policy in _policies(documents, pod)
        for rule in policy.get("ingress", [])
        for source in rule["from"]
        if peer in _labels(source)
        for port in _ports(pod, rule)
    }


def _labels(peer: Document) -> set[str]:
    return {label for selector in peer.values() for label in selector.get("matchLabels", {})}


def _outgoing(documents: list[Document], pod: Pod) -> dict[int, set[str]]:
    open_ports: dict[int, set[str]] = {}
    for policy in _policies(documents, pod):
        for rule in policy.get("egress", []):
            for port in rule["ports"]:
                peers = {label for peer in rule.get("to", []) for label in _labels(peer)}
                open_ports.setdefault(port["port"], set()).update(peers or {"anywhere"})
    return open_ports


def test_whatever_is_not_allowed_is_shut(overlay: list[Document]) -> None:
    for pod in pods(overlay):
        shut = [p for p in _policies(overlay, pod) if {"Ingress", "Egress"} <= {*p["policyTypes"]}]
        assert any(not p["podSelector"] for p in shut), pod.name


def test_no_rule_is_open_to_all(overlay: list[Document]) -> None:
    for document in overlay:
        if document["kind"] == "NetworkPolicy":
            for rule in document["spec"].get("ingress", []):
                assert rule["from"]
                assert rule["ports"]
                assert all(_labels(peer) for peer in rule["from"])


EXPECTED: dict[str, dict[str, set[int]]] = {
    "metric-forecast": {"clients": {8001}, "monitoring": {8001}},
    "log-anomaly": {"clients": {8002}, "monitoring": {8002}},
    "train-failure-rca": {"clients": {8003}, "monitoring": {8003}},
    "forecast-loop": {"clients": set(), "monitoring": {9108}},
    "log-pipeline": {"clients": {9200}, "monitoring": {9200}},
    "job-diagnosis": {"clients": {8004}, "monitoring": {8004}},
    "triton": {"clients": set(), "monitoring": {8002}, "asks-triton": {8001}},
    "script-exporter": {"clients": set(), "monitoring": {5535}},
}


def test_exactly_these_ports_are_open(overlay: list[Document]) -> None:
    found = {
        pod.name: {
            peer: _incoming(overlay, pod, f"presage.io/{peer}") for peer in EXPECTED[pod.name]
        }
        for pod in pods(overlay)
    }
    assert found == EXPECTED


def test_whoever_is_told_of_triton_reaches_it(overlay: list[Document]) -> None:
    texts = {p.name: " ".join(p.main.get("args", [])) for p in pods(overlay)}
    asking = {name for name, text in texts.items() if "triton:8001" in text} | {"forecast-loop"}
    assert len(asking) == 6
    for pod in pods(overlay):
        ways = _outgoing(overlay, pod).get(8001, set())
        assert (ways == {"presage.io/triton"}) == (pod.name in asking), pod.name


@pytest.mark.parametrize(
    ("name", "port", "peer"),
    [
        ("forecast-loop", 9090, "presage.io/monitoring"),
        ("metric-forecast", 9090, "presage.io/monitoring"),
        ("job-diagnosis", 9090, "presage.io/monitoring"),
        ("job-diagnosis", 5432, "presage.io/database"),
        ("log-pipeline", 9093, "presage.io/monitoring"),
        ("log-pipeline", 9200, "presage.io/elasticsearch"),
    ],
)
def test_they_reach_what_their_settings_name(
    overlay: list[Document], name: str, port: int, peer: str
) -> None:
    (pod,) = (p for p in pods(overlay) if p.name == name)
    assert _outgoing(overlay, pod)[port] == {peer}


def test_monitors_find_pods_and_ports(overlay: list[Document]) -> None:
    watched = set()
    for document in overlay:
        if document["kind"] not in {"PodMonitor", "ServiceMonitor"}:
            continue
        labels = document["spec"]["selector"]["matchLabels"]
        ends: list[Any] = (
            document["spec"].get("podMetricsEndpoints") or document["spec"]["endpoints"]
        )
        for pod in pods(overlay):
            if labels.items() <= pod.labels.items() and (
                pod.namespace == document["metadata"]["namespace"]
            ):
                ports = {p["name"] for c in pod.containers for p in c.get("ports", [])}
                assert {end["port"] for end in ends} <= ports
                watched.add(pod.name)
        if document["kind"] == "ServiceMonitor":
            services = [
                d
                for d in overlay
                if d["kind"] == "Service"
                and labels.items() <= d["metadata"].get("labels", {}).items()
            ]
            assert services
            for service in services:
                assert {e["port"] for e in ends} <= {p["name"] for p in service["spec"]["ports"]}
    assert watched == set(EXPECTED)


def test_monitors_name_jobs_as_rules_ask_for_them(overlay: list[Document]) -> None:
    targets = ROOT / "deploy/prometheus/targets"
    known = {
        entry["labels"]["job"]
        for path in targets.glob("*.yml")
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
        if "labels" in entry
    }
    named = {
        relabel["replacement"]
        for document in overlay
        if document["kind"] in {"PodMonitor", "ServiceMonitor"}
        for end in document["spec"].get("podMetricsEndpoints") or document["spec"]["endpoints"]
        for relabel in end["relabelings"]
        if relabel["targetLabel"] == "job"
    }
    assert named <= known
    asked = set()
    for path in (targets.parent / "rules").glob("*.yml"):
        asked |= set(re.findall(r'job="([^"]+)"', path.read_text(encoding="utf-8")))
    assert asked <= named


def test_the_operator_gets_every_rule(overlay: list[Document]) -> None:
    given = [d["spec"]["groups"] for d in overlay if d["kind"] == "PrometheusRule"]
    wanted = [
        yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    ]
    assert sorted(given, key=str) == sorted(wanted, key=str)


def test_notices_find_their_settings_and_get_out(composed: dict[str, list[Document]]) -> None:
    documents = composed["notices"]
    (pod,) = (p for p in pods(documents) if p.name == "job-diagnosis")
    settings = {e["name"]: e["value"] for e in pod.main["env"]}
    (mounted,) = (m for m in pod.main["volumeMounts"] if m["name"] == "notices")
    assert settings["PRESAGE_JOBS_NOTIFY_CONFIG"] == f"{mounted['mountPath']}/notify.toml"
    (volume,) = (v for v in pod.spec["volumes"] if v["name"] == "notices")
    # kustomize has put the content's hash into both names.
    content = find(documents, "ConfigMap", volume["configMap"]["name"])["data"]["notify.toml"]
    assert NotifyConfig.model_validate(tomllib.loads(content)).channel
    assert set(_outgoing(documents, pod)) >= {443, 587, 9093}


def test_services_find_pods_and_ports(overlay: list[Document]) -> None:
    for document in overlay:
        if document["kind"] == "Service":
            selector = document["spec"]["selector"]
            # KServe gives its pods this label.
            selector = {k: v for k, v in selector.items() if not k.startswith("serving.kserve.io")}
            (pod,) = (
                p
                for p in pods(overlay)
                if selector.items() <= p.labels.items()
                and (selector or p.kind == "InferenceService")
            )
            named = {
                p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", [])
            }
            for port in document["spec"]["ports"]:
                assert named[port["targetPort"]] == port["port"]


def test_callers_of_triton_see_every_pod(overlay: list[Document]) -> None:
    service = find(overlay, "Service", "triton")["spec"]
    assert service["clusterIP"] == "None"
