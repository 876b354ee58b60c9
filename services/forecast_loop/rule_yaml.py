"""How rules are written as YAML."""

from __future__ import annotations

import math
from typing import Any

import yaml


def rule_yaml(content: dict[str, Any]) -> str:
    """Expressions of several lines stay as they are read; nothing is an alias of another."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
