"""A pod's status and events, as lines such as ``kubectl describe`` prints: why it died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_MOST_EVENTS = 40
_LONGEST_MESSAGE = 600
_TELLING_NORMAL = {"Killing", "Preempting", "Preempted", "Evicted", "NodeNotReady", "BackOff"}
"""Events of type Normal that say why something ended; the others say that all went well."""
_TELLING_CONDITIONS = {"PodScheduled": "False", "DisruptionTarget": "True"}
_DULL_WAITS = {"PodInitializing", "ContainerCreating"}
"""Reasons of waiting that say nothing."""


def failed_container(pod: Mapping[str, Any]) -> str | None:
    """The first that failed, init containers before the others; else the first there is."""
    statuses = _statuses(pod)
    for status, _ in statuses:
        ended = last_end(status)
        if ended is not None and _exit_code(ended) != 0:
            return str(status["name"])
    for status, _ in statuses:
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _DULL_WAITS:
            return str(status["name"])
    containers = (pod.get("spec") or {}).get("containers") or []
    return str(containers[0]["name"]) if containers else None


def container_status(pod: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((status for status, _ in _statuses(pod) if status["name"] == name), None)


def container_names(pod: Mapping[str, Any]) -> list[str]:
    spec = pod.get("spec") or {}
    return [
        str(container["name"])
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(kind) or []
    ]


def last_end(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How its last run that ended, ended."""
    for state in ("state", "lastState"):
        ended: Mapping[str, Any] | None = (status.get(state) or {}).get("terminated")
        if ended:
            return ended
    return None


def is_previous(status: Mapping[str, Any] | None) -> bool:
    """Whether the run that ended is the one before the present one."""
    if status is None or (status.get("state") or {}).get("terminated"):
        return False
    return bool((status.get("lastState") or {}).get("terminated"))


def status_lines(pod: Mapping[str, Any]) -> list[str]:
    """Phase, reason, conditions, and how each container ended that did not end well."""
    status = pod.get("status") or {}
    lines = []
    if status.get("reason") or status.get("message"):
        lines.append(
            _line(
                f"Status: {status.get('phase', '')}",
                ("Reason", status.get("reason")),
                ("Message", status.get("message")),
            )
        )
    for condition in status.get("conditions") or []:
        if _TELLING_CONDITIONS.get(condition.get("type")) == condition.get("status"):
            lines.append(
                _line(
                    f"Condition: {condition['type']}={condition['status']}",
                    ("Reason", condition.get("reason")),
                    ("Message", condition.get("message")),
                )
            )
    for container, is_init in _statuses(pod):
        kind = "Init Container" if is_init else "Container"
        ended = last_end(container)
        if ended is not None and _exit_code(ended) != 0:
            lines.append(
                _line(
                    f"{kind} {container['name']}:  Last State: Terminated",
                    ("Reason", ended.get("reason")),
                    ("Exit Code", _exit_code(ended)),
                    ("Signal", ended.get("signal")),
                    ("Restart Count", container.get("restartCount") or None),
                    ("Message", ended.get("message")),
                )
            )
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _DULL_WAITS:
            lines.append(
                _line(
                    f"{kind} {container['name']}:  State: Waiting",
                    ("Reason", waiting.get("reason")),
                    ("Message", waiting.get("message")),
                )
            )
    return lines


def event_lines(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Warnings, and what else ended something, oldest first."""
    telling = [
        event
        for event in events
        if event.get("type") == "Warning" or event.get("reason") in _TELLING_NORMAL
    ]
    telling.sort(key=_seen)
    return [_event_line(event) for event in telling[-_MOST_EVENTS:]]


def _event_line(event: Mapping[str, Any]) -> str:
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    times = f" (x{count})" if isinstance(count, int) and count > 1 else ""
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    parts = [event.get("type"), f"{event.get('reason', '')}{times}", source, event.get("message")]
    return "  ".join(_flat(str(part)) for part in parts if part)


def _seen(event: Mapping[str, Any]) -> float:
    stamps = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
    )
    for stamp in stamps:
        if isinstance(stamp, str):
            try:
                stamp = datetime.fromisoformat(stamp)
            except ValueError:
                continue
        if isinstance(stamp, datetime):
            return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    return 0.0


def _statuses(pod: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], bool]]:
    """(status, is an init container), in the order in which they ran."""
    status = pod.get("status") or {}
    init = [(s, True) for s in status.get("initContainerStatuses") or []]
    return init + [(s, False) for s in status.get("containerStatuses") or []]


def _exit_code(ended: Mapping[str, Any]) -> int:
    code = ended.get("exitCode")
    return code if isinstance(code, int) else 0


def _line(head: str, *facts: tuple[str, Any]) -> str:
    return "  ".join([head, *(f"{name}: {_flat(str(v))}" for name, v in facts if v is not None)])


def _flat(text: str) -> str:
    """One line: a container's own message may be the end of its log."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_MESSAGE else "…" + flat[-_LONGEST_MESSAGE:]


def user_of(pod: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Whose job it is: the first of the labels or annotations there is."""
    metadata = pod.get("metadata") or {}
    for name in names:
        for kind in ("labels", "annotations"):
            value = (metadata.get(kind) or {}).get(name)
            if value:
                return str(value)[:253]
    return None
