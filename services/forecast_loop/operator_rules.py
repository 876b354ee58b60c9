"""The same rule files as PrometheusRule documents, for the Prometheus operator on Kubernetes."""

from __future__ import annotations

from pathlib import Path

import yaml

from contract.errors import ConfigError
from services.forecast_loop.rule_yaml import rule_yaml

NAMESPACE = "presage"


def operator_rules(folder: Path) -> str:
    """One document a rule file of ``folder``, in the order of their names; also those that were
    written by hand. Raises ConfigError for a file that holds no groups.
    """
    documents = []
    for path in sorted(folder.glob("*.yml")):
        groups = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("groups")
        if not groups:
            raise ConfigError("no rules in it", where=str(path), expected="groups:")
        document = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": _name(path), "namespace": NAMESPACE},
            "spec": {"groups": groups},
        }
        documents.append(rule_yaml(document))
    return "---\n".join(documents)


def _name(path: Path) -> str:
    """An object's name has neither underscores nor capitals."""
    return path.stem.replace("_", "-").lower()
