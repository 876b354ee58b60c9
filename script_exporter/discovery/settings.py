"""The settings of discovery: where the CMDB is, what its answer looks like, who runs what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from contract.errors import ConfigError
from script_exporter.yaml_file import Seconds, Text, faults_of, read_yaml


def _listed(given: Any) -> Any:
    """One value, or several."""
    return given if isinstance(given, list | tuple) else (given,)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression: {error}") from error
    return text


Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fields(_Settings):
    """Where in a host's object what stands; dots lead into objects."""

    name: str = "name"
    address: str = "address"
    cards: str = "cards"
    tags: str = "tags"


class CmdbSettings(_Settings):
    """``file`` or ``url``.

    hosts: where the list of hosts lies in the answer; "" where the answer is the list
    next: where the answer names the next page: a URL, or a value for ``page_parameter``
    max_loss: an answer that lacks more of the hosts known before is not believed
    """

    file: Path | None = None
    url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    token_file: Path | None = None
    ca_file: Path | None = None
    parameters: dict[str, Text] = Field(default_factory=dict)
    hosts: str = ""
    next: str = ""
    page_parameter: str = "page"
    fields: Fields = Fields()
    timeout: Seconds = 10.0
    interval: Seconds = 300.0
    max_loss: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _one_source(self) -> CmdbSettings:
        if (self.file is None) == (not self.url):
            raise ValueError("expected either file or url")
        if not self.interval or not self.timeout:
            raise ValueError("expected an interval and a timeout above 0")
        return self


class Match(_Settings):
    """All that is given must hold: one of the cards, every tag (one of its values), the name."""

    cards: Texts = ()
    tags: dict[str, Texts] = Field(default_factory=dict)
    name: Pattern = ""

    @property
    def is_empty(self) -> bool:
        return not (self.cards or self.tags or self.name)


class Assignment(_Settings):
    """Hosts that match, and are not excepted, run these collectors."""

    match: Match = Match()
    unless: Match = Match()
    run: Annotated[tuple[str, ...], Field(min_length=1)]


class OutputSettings(_Settings):
    """``port``: of the exporters. The files are written after every answer that is believed."""

    port: int = Field(default=5535, ge=1, le=65_535)
    listen: str = "127.0.0.1:5536"
    token_file: Path | None = None
    file_sd: Path | None = None
    inventory: Path | None = None


class DiscoverySettings(_Settings):
    cmdb: CmdbSettings
    assignments: tuple[Assignment, ...] = Field(min_length=1)
    output: OutputSettings = OutputSettings()
    state_file: Path = Path("build/script_exporter/cmdb.json")

    @property
    def cards(self) -> tuple[str, ...]:
        """Every card that an assignment names, the longest first."""
        names = {
            card
            for assignment in self.assignments
            for card in (*assignment.match.cards, *assignment.unless.cards)
        }
        return tuple(sorted(names, key=lambda name: (-len(name), name)))


def load_settings(path: Path) -> DiscoverySettings:
    """Raises ConfigError, which names every fault."""
    given, warnings = read_yaml(path, "deploy/script_exporter/discovery.yml")
    try:
        settings = DiscoverySettings.model_validate(given)
    except ValidationError as error:
        warnings += faults_of(error)
    if warnings:
        raise ConfigError("discovery settings are faulty", where=str(path), got="; ".join(warnings))
    return settings
