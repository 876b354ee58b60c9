"""Hosts with their collectors, as Prometheus' targets and as an Ansible inventory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from script_exporter.discovery.host import Host
from script_exporter.discovery.settings import DiscoverySettings

META = "__meta_cmdb_"


@dataclass(frozen=True)
class Target:
    """A host that runs collectors; ``cards`` by the names that the assignments use."""

    host: Host
    cards: tuple[str, ...]
    collectors: tuple[str, ...]


def assign(hosts: Iterable[Host], settings: DiscoverySettings) -> list[Target]:
    """Sorted by name; hosts to which nothing is assigned are left out."""
    targets = []
    for host in sorted(hosts, key=lambda host: host.name):
        collectors: dict[str, None] = {}
        for assignment in settings.assignments:
            excepted = not assignment.unless.is_empty and host.matches(assignment.unless)
            if host.matches(assignment.match) and not excepted:
                collectors |= dict.fromkeys(assignment.run)
        if collectors:
            cards = tuple(card for card in settings.cards if host.has_card(card))
            targets.append(Target(host, cards, tuple(collectors)))
    return targets


def service_discovery(targets: Iterable[Target], port: int) -> str:
    """JSON for http_sd and file_sd.

    ``__meta_cmdb_name``, ``_cards`` and ``_collectors`` (``,a,b,``: a regular expression finds one
    with ``.*,a,.*``), ``_tag_<tag>``; relabelling turns them into labels.
    """
    groups = []
    for target in targets:
        address = target.host.address
        labels = {
            f"{META}name": target.host.name,
            f"{META}cards": _joined(target.cards),
            f"{META}collectors": _joined(target.collectors),
        }
        for tag, value in sorted(target.host.tags.items()):
            labels.setdefault(f"{META}tag_{re.sub(r'[^a-zA-Z0-9_]', '_', tag)}", value)
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        groups.append({"targets": [where], "labels": labels})
    return json.dumps(groups, ensure_ascii=False, indent=1)


def inventory(targets: Iterable[Target], port: int) -> str:
    """Ansible's YAML: groups ``card_<card>`` and ``collector_<collector>``, facts at the hosts."""
    hosts: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for target in targets:
        hosts[target.host.name] = {
            "ansible_host": target.host.address,
            "script_exporter_port": port,
            "script_exporter_collectors": list(target.collectors),
            "cmdb_cards": list(target.cards),
            "cmdb_tags": dict(target.host.tags),
        }
        names = [f"card_{card}" for card in target.cards]
        names += [f"collector_{collector}" for collector in target.collectors]
        for name in names:
            group = groups.setdefault(_group_name(name), {"hosts": {}})
            group["hosts"][target.host.name] = {}
    content = {"all": {"hosts": hosts, "children": dict(sorted(groups.items()))}}
    # What the CMDB says is text, not a template of Ansible's.
    return yaml.dump(_unsafe(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _joined(names: Iterable[str]) -> str:
    return "".join(f",{name}" for name in names) + ","


def _group_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", text.lower())


class _Unsafe(str):
    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"')
)


def _unsafe(given: Any) -> Any:
    """Values that look like a template are marked, so that Ansible does not run them."""
    if isinstance(given, dict):
        return {key: _unsafe(value) for key, value in given.items()}
    if isinstance(given, list):
        return [_unsafe(value) for value in given]
    if isinstance(given, str) and re.search(r"\{[{%#]", given):
        return _Unsafe(given)
    return given
