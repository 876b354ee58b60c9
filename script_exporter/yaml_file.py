"""A YAML file of settings: how it is read, and how its faults are named."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from contract.errors import ConfigError

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(given: Any) -> Any:
    """A number is seconds; 500ms, 30s, 5m are understood."""
    if isinstance(given, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", given)
        if not parts or "".join(count + unit for count, unit in parts) != given:
            raise ValueError(f"expected seconds, or a duration such as 30s, got {given!r}")
        return sum(float(count) * _UNIT_SECONDS[unit] for count, unit in parts)
    if isinstance(given, bool):
        raise ValueError("expected seconds")
    return given


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(lambda given: given if given is None else str(given))]


def read_yaml(path: Path, sample: str) -> tuple[dict[str, Any], list[str]]:
    """The file's members (none of them null) and warnings. Raises ConfigError.

    sample: a file to start from
    """
    warnings: list[str] = []
    try:
        given = yaml.load(path.read_text("utf-8"), _loader(warnings))
    except OSError as error:
        raise ConfigError(
            "configuration cannot be read",
            where=str(path),
            got=error.strerror or str(error),
            next_command=f"start from {sample}",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            "configuration is no YAML", where=str(path), got=" ".join(str(error).split())
        ) from error
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ConfigError(
            "configuration is no YAML mapping", where=str(path), got=type(given).__name__
        )
    return {str(key): value for key, value in given.items() if value is not None}, warnings


def faults_of(error: ValidationError) -> list[str]:
    """Each fault with its place in the file."""
    faults = []
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"])
        faults.append(f"{place or 'the file'}: {one['msg'].removeprefix('Value error, ')}")
    return faults


def _loader(warnings: list[str]) -> type[yaml.SafeLoader]:
    """A SafeLoader that names a key given twice; the last one holds, as in the Go program."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    warnings.append(
                        f"{key.value} at line {key.start_mark.line + 1}: given twice, the last "
                        "one holds"
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader
