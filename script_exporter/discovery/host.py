"""``Host``: what the CMDB says of one machine, whatever words it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from script_exporter.discovery.settings import Fields, Match


@dataclass(frozen=True)
class Host:
    """``cards`` as the CMDB writes them; a tag without a value is "true"."""

    name: str
    address: str
    cards: tuple[str, ...]
    tags: Mapping[str, str]

    def matches(self, match: Match) -> bool:
        return (
            (not match.cards or any(self.has_card(card) for card in match.cards))
            and all(self.tags.get(tag) in values for tag, values in match.tags.items())
            and (not match.name or re.fullmatch(match.name, self.name) is not None)
        )

    def has_card(self, name: str) -> bool:
        return any(is_card(text, name) for text in self.cards)


def is_card(text: str, name: str) -> bool:
    """Whether ``NVIDIA A100-SXM4-80GB`` is an A100, and ``Ascend 910B3`` a 910B.

    A name goes on where its last letter's kind does: A1000 is no A100, and GA100 is none.
    """
    before = r"(?<![0-9])" if name[:1].isdigit() else r"(?<![A-Za-z])"
    after = r"(?![0-9])" if name[-1:].isdigit() else r"(?![A-Za-z])"
    return re.search(before + re.escape(name) + after, text, re.IGNORECASE) is not None


def read_host(given: Any, fields: Fields) -> Host | None:
    """None where name or address is missing; an address is the name's where only one is there."""
    if not isinstance(given, Mapping):
        return None
    name = str(found(given, fields.name) or "").strip()
    address = str(found(given, fields.address) or "").strip() or name
    name = name or address
    if not name or re.search(r"[\s/,{}\"]", name + address):
        return None
    cards = tuple(_names(found(given, fields.cards)))
    return Host(name, address, cards, dict(_tags(found(given, fields.tags))))


def found(given: Any, place: str) -> Any:
    """What lies at ``a.b.c``; the whole for ""; None where there is nothing."""
    for part in filter(None, place.split(".")):
        if not isinstance(given, Mapping):
            return None
        given = given.get(part)
    return given


def _names(given: Any) -> Iterable[str]:
    """``"A100"``, ``"A100, H20"``, ``["A100"]``, ``[{"model": "A100", "count": 8}]``."""
    if isinstance(given, str):
        yield from filter(None, map(str.strip, re.split(r"[,;]", given)))
    elif isinstance(given, Mapping):
        name = next((given[key] for key in ("model", "name", "type") if given.get(key)), "")
        yield from _names(name)
    elif isinstance(given, Iterable):
        for one in given:
            yield from _names(one)
    elif given is not None:
        # A CMDB that took 910 for a number.
        yield str(given)


def _tags(given: Any) -> Iterable[tuple[str, str]]:
    """``{"env": "prod"}``, ``["env=prod", "gpu"]``, ``[{"key": "env", "value": "prod"}]``."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield str(key), _text(value)
    elif isinstance(given, str):
        yield from _tags(re.split(r"[,;]", given))
    elif isinstance(given, Iterable):
        for one in given:
            if isinstance(one, Mapping) and "key" in one:
                yield str(one["key"]), _text(one.get("value", "true"))
            elif isinstance(one, str) and one.strip():
                key, value = re.split(r"[=:]", f"{one.strip()}=true", maxsplit=1)
                yield key.strip(), value.removesuffix("=true").strip() or "true"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
