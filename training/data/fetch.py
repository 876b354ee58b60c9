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
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class SourceFile:
    """One row of sources.tsv. ``file`` is relative to the data folder."""

    file: str
    repository: str
    commit: str
    path: str
    sha256: str
    size_bytes: int

    def url(self, base_url: str) -> str:
        parts = (self.repository, self.commit, self.path)
        return "/".join([base_url.rstrip("/"), *(quote(part) for part in parts)])


def read_sources(path: Path = SOURCES_FILE) -> list[SourceFile]:
    """The list of files that may be fetched. Raises DataFetchError for a row that escapes."""
    with path.open(newline="", encoding="utf-8") as file:
        sources = [
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
    for source in sources:
        parts = PurePosixPath(source.file)
        if parts.is_absolute() or ".." in parts.parts:
            raise DataFetchError(
                "a listed file lies outside the data folder", where=str(path), got=source.file
            )
    return sources


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
            pool.submit(_fetch_one, client, source, into, base, bar, stop) for source in missing
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


def _fetch_one(
    client: httpx.Client,
    source: SourceFile,
    into: Path,
    base_url: str,
    bar: tqdm,  # type: ignore[type-arg]
    stop: threading.Event,
) -> None:
    target = into / source.file
    partial = target.with_name(target.name + ".partial")
    url = source.url(base_url)
    reason = ""
    for attempt in range(_ATTEMPTS):
        if stop.is_set():
            return
        if attempt:
            stop.wait(0.25 * 2**attempt)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(client, url, partial, source, bar, stop)
        except httpx.ConnectError as error:
            # Nobody listens or no name service: a retry would only make the user wait.
            raise _failure(url, str(error) or type(error).__name__) from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code < 500 and error.response.status_code != 429:
                raise _failure(url, f"HTTP {error.response.status_code}") from error
            reason = f"HTTP {error.response.status_code}"
            continue
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__} {error}".strip()
            continue
        except OSError as error:
            raise _failure(str(target), str(error)) from error
        if stop.is_set():
            return
        digest = sha256_of(partial)
        if digest == source.sha256:
            partial.replace(target)
            return
        # A wrong hash cannot be resumed: begin again from nothing.
        bar.update(-partial.stat().st_size)
        partial.unlink()
        reason = f"sha256 {digest[:12]}…, expected {source.sha256[:12]}…"
    raise _failure(url, reason)


def _download(
    client: httpx.Client,
    url: str,
    partial: Path,
    source: SourceFile,
    bar: tqdm,  # type: ignore[type-arg]
    stop: threading.Event,
) -> None:
    done = partial.stat().st_size if partial.is_file() else 0
    if done > source.size_bytes:
        partial.unlink()
        done = 0
    if done == source.size_bytes:
        return
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"} if done else {}
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = done > 0 and response.status_code == 206
        with partial.open("ab" if resumed else "wb") as file:
            for piece in response.iter_bytes(_PIECE_BYTES):
                if stop.is_set():
                    return
                file.write(piece)
                bar.update(len(piece))


def _failure(where: str, got: str) -> DataFetchError:
    return DataFetchError(
        "a public file could not be fetched",
        where=where,
        got=got,
        next_command="run it again to resume, or name a folder: PRESAGE_DATA=/path/to/data",
    )
