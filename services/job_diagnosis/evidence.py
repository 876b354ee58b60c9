"""``JobEvidence``: what is known of a failed job, and the references by which it is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=253)]


@dataclass(frozen=True)
class JobEvidence:
    """log: UTF-8 text, whole or in pieces that may be cut anywhere; an iterator is read once
    extra: what no log says (events, exit code, reason), one line of text each; read as log lines
    node, device, user: of the job, where the source knows them
    """

    log: bytes | Iterator[bytes]
    extra: tuple[str, ...] = ()
    node: str | None = None
    device: str | None = None
    user: str | None = None


class _Reference(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ElasticsearchReference(_Reference):
    """The documents of ``index`` that ``query`` (query DSL) or ``query_string`` (Lucene) finds,
    oldest first.
    """

    source: Literal["elasticsearch"]
    index: Name
    query: dict[str, Any] | None = None
    query_string: str | None = Field(default=None, min_length=1, max_length=10_000)


class KubernetesReference(_Reference):
    """A pod: the log of its container's last run that ended, its events, exit code and reason.

    container: the first that failed, where it is not named
    """

    source: Literal["kubernetes"]
    namespace: Name = "default"
    pod: Name
    container: Name | None = None


class FileReference(_Reference):
    """A file below one of the folders that the service was told to read."""

    source: Literal["file"]
    path: str = Field(min_length=1, max_length=4096)


Reference = Annotated[
    ElasticsearchReference | KubernetesReference | FileReference, Field(discriminator="source")
]


R = TypeVar("R", contravariant=True)


class Source(Protocol[R]):
    """Fetches what a reference names. One instance answers several threads.

    Raises:
        InputError and its subclasses: the reference names nothing, or what it must not name.
        ServerUnavailableError: the source is away, worth a retry. ServerAnswerError: it refuses.
    """

    def fetch(self, reference: R, /) -> JobEvidence: ...
