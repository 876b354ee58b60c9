"""What every pod of Presage keeps to. A rule says what is wrong with a pod, one line a fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.fixtures.manifests import Pod

_SHA256 = re.compile(r"@sha256:[0-9a-f]{64}$")
_TAG = re.compile(r":([\w][\w.-]*)$")
_SECRET_WORDS = re.compile(
    r"(?<![a-z])(passwords?|secrets?|tokens?|api[-_]?keys?|database[-_]url)(?![a-z])", re.IGNORECASE
)


def _each(pod: Pod, wrong: Callable[[dict[str, Any]], bool], what: str) -> list[str]:
    return [f"{pod.name}/{c['name']}: {what}" for c in pod.containers if wrong(c)]


def runs_as_somebody_else_than_root(pod: Pod) -> list[str]:
    context = pod.spec.get("securityContext", {})
    good = context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0
    own = _each(
        pod,
        lambda c: (
            c.get("securityContext", {}).get("runAsUser", 1) == 0
            or c.get("securityContext", {}).get("runAsNonRoot", True) is False
        ),
        "is root",
    )
    return own if good else [f"{pod.name}: may be root", *own]


def has_the_runtimes_seccomp_profile(pod: Pod) -> list[str]:
    profile = pod.spec.get("securityContext", {}).get("seccompProfile", {})
    return [] if profile.get("type") == "RuntimeDefault" else [f"{pod.name}: no seccomp profile"]


def writes_nothing_into_its_image(pod: Pod) -> list[str]:
    return _each(
        pod,
        lambda c: c.get("securityContext", {}).get("readOnlyRootFilesystem") is not True,
        "writable root file system",
    )


def has_no_capabilities(pod: Pod) -> list[str]:
    def wrong(container: dict[str, Any]) -> bool:
        context = container.get("securityContext", {})
        capabilities = context.get("capabilities", {})
        return (
            capabilities.get("drop") != ["ALL"]
            or bool(capabilities.get("add"))
            or context.get("allowPrivilegeEscalation") is not False
            or bool(context.get("privileged"))
        )

    return _each(pod, wrong, "keeps privileges")


def shares_no_namespace_of_the_host(pod: Pod) -> list[str]:
    words = ("hostNetwork", "hostPID", "hostIPC")
    return [f"{pod.name}: {word}" for word in words if pod.spec.get(word)]


def says_what_it_needs(pod: Pod) -> list[str]:
    def wrong(container: dict[str, Any]) -> bool:
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        return not {"cpu", "memory"} <= set(requests) or "memory" not in limits

    return _each(pod, wrong, "no requests, or no limit of memory")


def is_probed(pod: Pod) -> list[str]:
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    return [
        f"{pod.name}/{container['name']}: no {probe}"
        for container in pod.spec["containers"]
        for probe in probes
        if probe not in container
    ]


def names_an_exact_image(pod: Pod) -> list[str]:
    def wrong(container: dict[str, Any]) -> bool:
        image = container["image"]
        tag = _TAG.search(image)
        return not _SHA256.search(image) and (tag is None or tag[1] == "latest")

    return _each(pod, wrong, "no tag, or latest")


def bounds_what_it_writes(pod: Pod) -> list[str]:
    """An emptyDir without a limit fills the node's disk."""
    return [
        f"{pod.name}: {volume['name']} without sizeLimit"
        for volume in pod.spec.get("volumes", [])
        if isinstance(volume.get("emptyDir"), dict)
        and "sizeLimit" not in volume["emptyDir"]
        and any(
            not mount.get("readOnly")
            for container in pod.containers
            for mount in container.get("volumeMounts", [])
            if mount["name"] == volume["name"]
        )
    ]


def has_secrets_by_reference_only(pod: Pod) -> list[str]:
    def wrong(container: dict[str, Any]) -> bool:
        named = (
            variable
            for variable in container.get("env", [])
            if not variable.get("value", "/run/secrets/").startswith("/run/secrets/")
        )
        words = [*container.get("command", []), *container.get("args", [])]
        told = (
            word
            for word in words
            if _SECRET_WORDS.search(word.partition("=")[0]) and not _names_a_file(word)
        )
        return any(_SECRET_WORDS.search(v["name"]) for v in named) or any(told)

    return _each(pod, wrong, "a secret in the manifest")


def _names_a_file(word: str) -> bool:
    flag, _, value = word.partition("=")
    return flag.endswith("-file") and value.startswith("/run/secrets/")


def mounts_secrets_below_run_secrets(pod: Pod) -> list[str]:
    secrets = {v["name"] for v in pod.spec.get("volumes", []) if "secret" in v}
    return [
        f"{pod.name}/{container['name']}: {mount['name']} at {mount['mountPath']}"
        for container in pod.containers
        for mount in container.get("volumeMounts", [])
        if mount["name"] in secrets
        and not (mount["mountPath"].startswith("/run/secrets/") and mount.get("readOnly"))
    ]


def mounts_only_volumes_that_are_there(pod: Pod) -> list[str]:
    there = {v["name"] for v in pod.spec.get("volumes", [])} | {"state", "spool"}
    return [
        f"{pod.name}/{container['name']}: no volume {mount['name']}"
        for container in pod.containers
        for mount in container.get("volumeMounts", [])
        if mount["name"] not in there
    ]


def drains_before_it_is_killed(pod: Pod) -> list[str]:
    """preStop lets callers hear of it; what a program needs after that is in test_commands.py."""
    grace = pod.spec.get("terminationGracePeriodSeconds")
    if grace is None:
        return [f"{pod.name}: nobody thought of its grace period"]
    if pod.kind == "DaemonSet":
        return []
    stops = [c.get("lifecycle", {}).get("preStop", {}) for c in pod.spec["containers"]]
    sleeps = [stop.get("sleep", {}).get("seconds", 0) for stop in stops]
    return [f"{pod.name}: preStop {s} s of {grace} s" for s in sleeps if not 0 < s < grace]


def holds_no_token_of_the_api_server(pod: Pod) -> list[str]:
    return (
        []
        if pod.spec.get("automountServiceAccountToken") is False
        else [f"{pod.name}: has a token"]
    )


RULES: tuple[Callable[[Pod], list[str]], ...] = (
    runs_as_somebody_else_than_root,
    has_the_runtimes_seccomp_profile,
    writes_nothing_into_its_image,
    has_no_capabilities,
    shares_no_namespace_of_the_host,
    says_what_it_needs,
    is_probed,
    names_an_exact_image,
    bounds_what_it_writes,
    has_secrets_by_reference_only,
    mounts_secrets_below_run_secrets,
    mounts_only_volumes_that_are_there,
    drains_before_it_is_killed,
    holds_no_token_of_the_api_server,
)
