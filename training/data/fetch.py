"""Downloads the public files listed in ``sources.tsv`` and nothing else.

Each file is pinned by commit and sha256. Partial files are resumed; a file appears under its own
name only when its hash is right.
"""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

import httpx
from tqdm import tqdm

from contract.errors import DataFetchError
from contract.manifest import sha256_of

SOURCES_FILE = Path(__file__).with_name("sources.tsv")
BASE_URL_VARIABLE = "PRESAGE_DATA_URL"
DEFAULT_BASE_URL = "https://raw.githubusercontent.com"
_PARALLEL = 4
_ATTEMPTS = 4
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_BACK_OFF = 0.25


@dataclass(frozen=True)
class SourceFile:
    """One row of sources.tsv. ``file`` is relative to the data folder."""

    file: str
    repository: str
    commit: str
    path: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.file)
        if parts.is_absolute() or not parts.name or ".." in parts.parts:
            raise DataFetchError("a listed file lies outside the data folder", got=self.file)

    def url(self, base_url: str) -> str:
        parts = (self.repository, self.commit, self.path)
        return "/".join([base_url.rstrip("/"), *(quote(part) for part in parts)])


def read_sources(path: Path = SOURCES_FILE) -> list[SourceFile]:
    """The list of files that may be fetched. Raises DataFetchError for a path that escapes."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            SourceFile(
                row["file"],
                row["repository"],
                row["commit"],
                row["path"],
                row["sha256"],
                int(row["bytes"]),
            )
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def fetch(
    into: Path,
    *,
    base_url: str | None = None,
    only: Sequence[str] = (),
    sources: Sequence[SourceFile] | None = None,
    progress: bool = True,
) -> int:
    """Bring every listed file (of the top folders in ``only``) into ``into``; return how many came.

    Raises:
        DataFetchError: no network, a hash or size that differs, no such file, or a full disk.
    """
    base = base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    wanted = [
        source
        for source in (read_sources() if sources is None else sources)
        if not only or source.file.split("/", 1)[0] in only
    ]
    missing = [source for source in wanted if not _is_there(into / source.file, source)]
    stop = threading.Event()
    with (
        tqdm(
            total=sum(source.size_bytes for source in missing),
            unit="B",
            unit_scale=True,
            desc="fetch",
            disable=not progress,
        ) as bar,
        httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        jobs = [
            pool.submit(_Download(client, source, into, base, bar, stop).run) for source in missing
        ]
        failed: BaseException | None = None
        for job in jobs:
            try:
                job.result()
            except BaseException as error:
                # The first failure stops the rest: what is there already stays for the resume.
                stop.set()
                failed = failed or error
        if failed is not None:
            raise failed
    return len(missing)


def _is_there(path: Path, source: SourceFile) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == source.size_bytes
        and sha256_of(path) == source.sha256
    )


class _InterruptedError(Exception):
    """The transfer broke off or the server is busy: worth another attempt from where it is."""


class _Download:
    """One listed file on its way from its URL through ``<name>.partial`` to its own name."""

    def __init__(
        self,
        client: httpx.Client,
        source: SourceFile,
        into: Path,
        base_url: str,
        bar: tqdm,
        stop: threading.Event,
    ) -> None:
        self.client, self.source, self.bar, self.stop = client, source, bar, stop
        self.url = source.url(base_url)
        self.target = into / source.file
        self.partial = self.target.with_name(self.target.name + ".partial")
        self.counted = 0
        self.resumed = False

    def run(self) -> None:
        """Bring the file; returns early when another file's failure set ``stop``, and sets it."""
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._persist()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.stop.set()
            raise self._failure(self.url, str(error) or type(error).__name__) from error
        except OSError as error:
            self.stop.set()
            raise self._failure(str(self.target), str(error)) from error
        except BaseException:
            self.stop.set()
            raise

    def _persist(self) -> None:
        """Attempt, wait, attempt again; only attempts that bring nothing are counted."""
        failures, most = 0, self._size()
        while not self.stop.is_set():
            try:
                self._transfer()
                if not self.stop.is_set():
                    self._accept()
                return
            except _InterruptedError as error:
                failures = 1 if self._size() > most else failures + 1
                most = max(most, self._size())
                if failures == _ATTEMPTS:
                    raise self._failure(self.url, f"{error}, {failures} times") from error
            self.stop.wait(_BACK_OFF * 2**failures)

    def _transfer(self) -> None:
        """Append what is missing to the partial file. Raises _InterruptedError, httpx.HTTPError."""
        done = self._size()
        if done >= self.source.size_bytes and self.partial.is_file():
            # Complete, yet not under its own name: only the hash can tell, or it is another file.
            if sha256_of(self.partial) == self.source.sha256:
                self._count(done)
                return
            done = 0
        headers = {"Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        try:
            with self.client.stream("GET", self.url, headers=headers) as response:
                self._check_status(response, done)
                self.resumed = response.status_code == 206
                start = done if self.resumed else 0
                self._count(start)
                with self.partial.open("ab" if self.resumed else "wb") as file:
                    self._receive(response, file, start)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol):
            # Nobody listens or no name service: a retry would only make the user wait.
            raise
        except httpx.TransportError as error:
            raise _InterruptedError(str(error) or type(error).__name__) from error
        if not self.stop.is_set() and self._size() < self.source.size_bytes:
            raise _InterruptedError(f"got {self._size():,} of {self.source.size_bytes:,} bytes")

    def _check_status(self, response: httpx.Response, done: int) -> None:
        if response.status_code == 416 or (
            response.status_code == 206
            and not response.headers.get("content-range", "").startswith(f"bytes {done}-")
        ):
            self.partial.unlink(missing_ok=True)
            raise _InterruptedError(f"HTTP {response.status_code} for byte {done:,}")
        if response.status_code == 429 or response.status_code >= 500:
            raise _InterruptedError(f"HTTP {response.status_code}")
        if response.status_code not in (200, 206):
            raise self._failure(self.url, f"HTTP {response.status_code}")

    def _receive(self, response: httpx.Response, file: BinaryIO, size: int) -> None:
        # In the pieces that arrive: a buffer's content would be lost when the line breaks.
        for piece in response.iter_bytes():
            if self.stop.is_set():
                return
            size += len(piece)
            if size > self.source.size_bytes:
                file.close()
                self.partial.unlink()
                raise self._failure(
                    self.url, "a longer file", expected=f"{self.source.size_bytes:,} bytes"
                )
            file.write(piece)
            self._count(size)

    def _accept(self) -> None:
        digest = sha256_of(self.partial)
        if digest != self.source.sha256:
            # Kept, it would be resumed for ever.
            self.partial.unlink()
            if self.resumed:
                raise _InterruptedError("what was here before does not fit the rest")
            raise self._failure(
                self.url,
                f"sha256 {digest[:12]}…",
                expected=f"{self.source.sha256[:12]}…",
            )
        self.partial.replace(self.target)

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def _count(self, size: int) -> None:
        self.bar.update(size - self.counted)
        self.counted = size

    @staticmethod
    def _failure(where: str, got: str, *, expected: str | None = None) -> DataFetchError:
        return DataFetchError(
            "a public file could not be fetched",
            where=where,
            expected=expected,
            got=got,
            next_command="run it again to resume, or name a folder: PRESAGE_DATA=/path/to/data",
        )
