"""A service's settings: one TOML file, checked by a pydantic model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from contract.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings_file(
    path: Path,
    model: type[Settings],
    *,
    example: str | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Read and check the settings; ``given``, by table, wins over the file's.

    example: a file to start from, named where there is none

    Raises ConfigError: which setting, expected, got. It never shows a value, which may be a secret.
    """
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
        for table, values in (given or {}).items():
            if values and isinstance(settings.get(table, {}), dict):
                settings[table] = {**settings.get(table, {}), **values}
        return model.model_validate(settings)
    except OSError as error:
        raise ConfigError(
            "settings cannot be read",
            where=str(path),
            got=error.strerror or str(error),
            next_command=None if example is None else f"start from {example}",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("settings are no TOML", where=str(path), got=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(
            f"setting {place or 'as a whole'} makes no sense{more}",
            where=str(path),
            got=first["msg"].removeprefix("Value error, "),
        ) from error
