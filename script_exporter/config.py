"""The exporter's configuration: the Go public_exporter's YAML, and what may be added to it.

What the Go program ignored is ignored here, too, but named in ``warnings``. Its defaults hold: a
cluster or collector without ``enabled: true`` does not run. Added settings (all optional): ``web``,
more limits under ``global``, and per collector ``args``, ``env``, ``user``, ``labels``, limits, and
the script type ``executable``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from contract.errors import ConfigError
from script_exporter.yaml_file import Seconds, Text, faults_of, read_yaml

DEFAULT_PORT = 5535
_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


LabelName = Annotated[str, Field(pattern=r"^_?[a-zA-Z][a-zA-Z0-9_]*$")]


class _Settings(BaseModel):
    # Kept apart in model_extra, to be named in a warning.
    model_config = ConfigDict(frozen=True, extra="allow")


class CollectorSettings(_Settings):
    """One script. ``enabled`` to ``script_type`` are the Go program's."""

    enabled: bool = False
    interval: Seconds = 0.0
    timeout: Seconds = 0.0
    script_path: str = ""
    script_type: Literal["", "python", "python2", "python3", "shell", "executable"] = ""
    args: tuple[Text, ...] = ()
    env: dict[str, Text] = Field(default_factory=dict)
    user: str = ""
    labels: dict[LabelName, Text] = Field(default_factory=dict)
    max_age: Seconds = 0.0
    max_output_bytes: int = Field(default=2 << 20, ge=1)
    max_series: int = Field(default=10_000, ge=1)
    max_processes: int = Field(default=64, ge=1)
    max_memory_mb: int = Field(default=0, ge=0)


class ClusterSettings(_Settings):
    enabled: bool = False
    collectors: Annotated[
        dict[Text, CollectorSettings], BeforeValidator(lambda given: given or {})
    ] = Field(default_factory=dict)


class GlobalSettings(_Settings):
    """``log_file`` to ``default_scrape_interval`` are the Go program's."""

    log_file: str = ""
    log_level: str = "info"
    log_max_age: int = Field(default=7, ge=0)
    log_rotation_time: int = Field(default=24, ge=0)
    http_port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    http_timeout: Seconds = 0.0
    default_scrape_interval: Seconds = 0.0
    max_concurrent: int = Field(default=8, ge=1, le=256)
    max_series: int = Field(default=100_000, ge=1)
    state_dir: str = ""


class WebSettings(_Settings):
    """Who may read and who may reload. A file holds one token a line."""

    listen_address: str = ""
    token_file: str = ""
    reload_token_file: str = ""


class FileSettings(_Settings):
    global_: GlobalSettings = Field(default=GlobalSettings(), alias="global")
    web: WebSettings = WebSettings()
    clusters: dict[Text, Annotated[ClusterSettings, BeforeValidator(lambda given: given or {})]] = (
        Field(min_length=1)
    )


@dataclass(frozen=True)
class Collector:
    """One enabled script with every default filled in."""

    cluster: str
    name: str
    command: tuple[str, ...]
    settings: CollectorSettings
    interval_seconds: float
    timeout_seconds: float
    max_age_seconds: float

    @property
    def key(self) -> str:
        """As in the Go program's /health."""
        return f"{self.cluster}:{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        return {"cluster": self.cluster, "collector": self.name}


@dataclass(frozen=True)
class ExporterConfig:
    """The file, read: the collectors that run, and what is odd about the rest."""

    path: Path
    file: FileSettings
    collectors: tuple[Collector, ...]
    warnings: tuple[str, ...]

    @property
    def http_timeout_seconds(self) -> float:
        return self.file.global_.http_timeout or 30.0

    @property
    def state_dir(self) -> Path:
        """Where scripts keep what they must remember between runs; systemd names its own."""
        given = self.file.global_.state_dir or os.environ.get("STATE_DIRECTORY", "")
        return Path(given or "build/script_exporter/state")

    @property
    def log_level(self) -> str:
        level = self.file.global_.log_level.lower()
        return level if level in _LEVELS else "info"


def load_config(path: Path) -> ExporterConfig:
    """Raises ConfigError, which names every fault of the file."""
    given, warnings = read_yaml(path, "deploy/script_exporter/config.yml")
    try:
        file = FileSettings.model_validate(given)
    except ValidationError as error:
        raise _refused(path, faults_of(error)) from error
    warnings += _ignored(file)
    if file.global_.log_level.lower() not in _LEVELS:
        warnings.append(f"global.log_level: {file.global_.log_level!r} is unknown: info")
    collectors, faults = _collectors(file, warnings)
    if faults:
        raise _refused(path, faults)
    return ExporterConfig(path, file, tuple(collectors), tuple(warnings))


def _collectors(file: FileSettings, warnings: list[str]) -> tuple[list[Collector], list[str]]:
    found: list[Collector] = []
    faults: list[str] = []
    default_interval = file.global_.default_scrape_interval or 60.0
    for cluster, group in file.clusters.items():
        if not group.enabled:
            continue
        if not group.collectors:
            faults.append(f"clusters.{cluster}.collectors: expected at least one")
        for name, settings in group.collectors.items():
            place = f"clusters.{cluster}.collectors.{name}"
            if not settings.enabled:
                if "enabled" not in settings.model_fields_set:
                    warnings.append(f"{place}: without `enabled: true` it does not run")
                continue
            if not settings.script_path:
                faults.append(f"{place}.script_path: expected a path")
            if not settings.script_type:
                faults.append(
                    f"{place}.script_type: expected python, python2, python3, shell or executable"
                )
            interval = settings.interval or default_interval
            timeout = settings.timeout or 30.0
            if timeout > interval:
                warnings.append(
                    f"{place}.timeout: {timeout:g} s is longer than its interval of {interval:g} s"
                )
            found.append(
                Collector(
                    cluster,
                    name,
                    (*_interpreter(settings), settings.script_path, *settings.args),
                    settings,
                    interval,
                    timeout,
                    settings.max_age or max(10 * interval, 300.0),
                )
            )
    return found, faults


def _interpreter(settings: CollectorSettings) -> tuple[str, ...]:
    return {
        "python": ("python3",),
        "python3": ("python3",),
        "python2": ("python2",),
        "shell": ("bash",),
    }.get(settings.script_type, ())


def _ignored(file: FileSettings) -> Iterator[str]:
    """Settings that nobody reads, by their place."""
    yield from _extra(file, "")
    yield from _extra(file.global_, "global.")
    yield from _extra(file.web, "web.")
    for cluster, group in file.clusters.items():
        yield from _extra(group, f"clusters.{cluster}.")
        for name, settings in group.collectors.items():
            yield from _extra(settings, f"clusters.{cluster}.collectors.{name}.")


def _extra(settings: _Settings, place: str) -> Iterator[str]:
    for key in settings.model_extra or {}:
        yield f"{place}{key}: unknown, ignored"


def _refused(path: Path, faults: list[str]) -> ConfigError:
    return ConfigError(
        f"configuration has {len(faults)} fault{'s' if len(faults) > 1 else ''}",
        where=str(path),
        got="; ".join(faults),
        next_command=f"python -m script_exporter --check config -config.file {path}",
    )
