"""``Cmdb``: asks for the hosts; what was answered last is kept, over restarts, and its age told."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import (
    ConfigError,
    PresageError,
    ServerAnswerError,
    ServerUnavailableError,
)
from script_exporter.discovery.host import Host, found, read_host
from script_exporter.discovery.settings import CmdbSettings

if TYPE_CHECKING:
    import httpx

MOST_PAGES = 1000
LARGEST_ANSWER_BYTES = 64 << 20


class Cmdb:
    """``hosts`` is None until there was an answer, now or in an earlier run.

    answered_at: when it was given (seconds since the epoch)
    requests: by their end: ok, unreachable, answer (not understood), shrunk (not believed)
    skipped: hosts of the newest answer without a name, or twice
    """

    def __init__(
        self, settings: CmdbSettings, state_file: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._state_file = state_file
        self._clock = clock
        self.hosts: tuple[Host, ...] | None = None
        self.answered_at: float | None = None
        self.skipped = 0
        self.requests: Counter[str] = Counter()
        self.problem = ""
        self._load()

    @property
    def age_seconds(self) -> float | None:
        return None if self.answered_at is None else self._clock() - self.answered_at

    def refresh(self, *, accept_loss: bool = False) -> bool:
        """Ask once. Whether the answer was taken; ``problem`` says why not."""
        try:
            hosts = self._read(list(self._ask()))
        except ServerUnavailableError as error:
            return self._refused("unreachable", error)
        except PresageError as error:
            return self._refused("answer", error)
        lost = self._lost(hosts)
        if not accept_loss and lost > self._settings.max_loss:
            doubt = ServerAnswerError(
                "too many hosts are gone at once",
                where=self._source,
                expected=f"at most {self._settings.max_loss:.0%} of {len(self.hosts or ())}",
                got=f"{lost:.0%}",
                next_command="python -m script_exporter discover --accept-loss, if that is right",
            )
            return self._refused("shrunk", doubt)
        self.requests["ok"] += 1
        self.problem = ""
        self.hosts, self.answered_at = hosts, self._clock()
        self._save()
        return True

    @property
    def _source(self) -> str:
        return self._settings.url or str(self._settings.file)

    def _refused(self, reason: str, error: PresageError) -> bool:
        self.requests[reason] += 1
        self.problem = str(error)
        return False

    def _lost(self, hosts: tuple[Host, ...]) -> float:
        before = {host.name for host in self.hosts or ()}
        if not before:
            return 0.0
        return len(before - {host.name for host in hosts}) / len(before)

    def _read(self, given: list[Any]) -> tuple[Host, ...]:
        hosts: dict[str, Host] = {}
        for one in given:
            host = read_host(one, self._settings.fields)
            if host is not None:
                hosts.setdefault(host.name, host)
        self.skipped = len(given) - len(hosts)
        if given and not hosts:
            raise ServerAnswerError(
                "no host of the answer has a name",
                where=self._source,
                expected=f"a name at {self._settings.fields.name!r}",
                got=json.dumps(given[0], ensure_ascii=False, default=str)[:200],
            )
        return tuple(hosts.values())

    def _ask(self) -> Iterator[Any]:
        if self._settings.file is not None:
            try:
                content = self._settings.file.read_bytes()
            except OSError as error:
                raise ServerUnavailableError(
                    "the CMDB's file cannot be read",
                    where=str(self._settings.file),
                    got=error.strerror or str(error),
                ) from error
            yield from self._hosts(content)[0]
            return
        yield from self._pages()

    def _pages(self) -> Iterator[Any]:
        import httpx

        settings = self._settings
        headers = {"Accept": "application/json"}
        if settings.token_file is not None:
            headers["Authorization"] = f"Bearer {_secret(settings.token_file)}"
        verify = str(settings.ca_file) if settings.ca_file is not None else True
        url: str = settings.url
        parameters = dict(settings.parameters)
        seen: set[str] = set()
        try:
            with httpx.Client(
                timeout=settings.timeout, headers=headers, verify=verify, trust_env=False
            ) as client:
                for _ in range(MOST_PAGES):
                    answer = client.get(url, params=parameters or None)
                    if answer.status_code >= 500 or answer.status_code == 429:
                        raise ServerUnavailableError(
                            "the CMDB failed", where=url, got=f"HTTP {answer.status_code}"
                        )
                    if answer.status_code != 200:
                        raise ServerAnswerError(
                            "the CMDB refuses", where=url, got=f"HTTP {answer.status_code}"
                        )
                    hosts, following = self._hosts(answer.content)
                    yield from hosts
                    if not following or following in seen:
                        return
                    seen.add(following)
                    if following.startswith(("http://", "https://", "/")):
                        # Never to another machine: the token goes with it.
                        joined = answer.url.join(following)
                        if _machine(joined) != _machine(answer.url):
                            raise ServerAnswerError(
                                "the next page is on another host", where=url, got=following
                            )
                        url, parameters = str(joined), {}
                    else:
                        parameters[settings.page_parameter] = following
        except (httpx.HTTPError, OSError) as error:
            raise ServerUnavailableError(
                "the CMDB cannot be reached", where=url, got=str(error) or type(error).__name__
            ) from error

    def _hosts(self, content: bytes) -> tuple[list[Any], str]:
        """Hosts of a page, and what names the next one."""
        if len(content) > LARGEST_ANSWER_BYTES:
            raise ServerAnswerError(
                "the CMDB's answer is too large", where=self._source, got=f"{len(content)} bytes"
            )
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ServerAnswerError(
                "the CMDB's answer is no JSON", where=self._source, got=repr(content[:80])
            ) from error
        hosts = found(answer, self._settings.hosts)
        if not isinstance(hosts, list):
            raise ServerAnswerError(
                "no list of hosts in the CMDB's answer",
                where=self._source,
                expected=f"a list at {self._settings.hosts or 'the top'!r}",
                got=type(hosts).__name__,
            )
        following = found(answer, self._settings.next) if self._settings.next else None
        return hosts, "" if following in (None, False) else str(following)

    def _load(self) -> None:
        try:
            given = json.loads(self._state_file.read_text("utf-8"))
            if given["source"] != self._source:
                return
            self.hosts = tuple(
                Host(one["name"], one["address"], tuple(one["cards"]), one["tags"])
                for one in given["hosts"]
            )
            self.answered_at = float(given["answered_at"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problem = f"{self._state_file}: not used: {error}"

    def _save(self) -> None:
        content = {
            "source": self._source,
            "answered_at": self.answered_at,
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "cards": host.cards,
                    "tags": host.tags,
                }
                for host in self.hosts or ()
            ],
        }
        try:
            write_file(self._state_file, json.dumps(content, ensure_ascii=False))
        except OSError as error:
            self.problem = f"{self._state_file}: {error.strerror}: an outage will cost the targets"


def write_file(path: Path, text: str) -> None:
    """Whole or not at all: Prometheus reads such files while they are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _machine(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _secret(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError("the CMDB's token cannot be read", where=str(file)) from error
