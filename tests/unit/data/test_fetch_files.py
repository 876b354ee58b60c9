"""`training data fetch` against a real HTTP server on the loopback that serves such files."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from contract.errors import DataFetchError
from training.command import main
from training.data.fetch import SourceFile, fetch, read_sources
from training.data.source import FETCHED_MARK

CONTENT = bytes(range(256)) * 1200  # 300 KiB: several pieces


class Origin(ThreadingHTTPServer):
    """Serves ``files`` ({path: bytes}) as a raw-file host does; its faults can be switched on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.break_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.busy = 0  # how many of the next answers are 503

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(unquote(self.path))
        if self.server.busy:
            self.server.busy -= 1
            self.send_error(503)
            return
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and self.server.ranges:
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.break_after:
            content = content[: self.server.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Origin()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.fetch._BACK_OFF", 0.001)


def listed(
    origin: Origin, file: str = "metrics/a.csv", content: bytes = CONTENT, path: str = "data/a.csv"
) -> SourceFile:
    origin.files[f"/owner/name/abc123/{path}"] = content
    digest = hashlib.sha256(content).hexdigest()
    return SourceFile(file, "owner/name", "abc123", path, digest, len(content))


def bring(origin: Origin, into: Path, *sources: SourceFile) -> int:
    return fetch(into, base_url=origin.url, sources=sources, progress=False)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_arrive_once_and_are_left_alone_after(origin: Origin, tmp_path: Path) -> None:
    sources = [
        listed(origin),
        listed(origin, "logs/b c.log", b"x", "b dir/a:b c#d%.log"),
        listed(origin, "logs/d.log", b"y" * 70_000, "d.log"),
    ]
    assert bring(origin, tmp_path, *sources) == 3
    assert (tmp_path / "metrics/a.csv").read_bytes() == CONTENT
    assert (tmp_path / "logs/b c.log").read_bytes() == b"x"
    assert files_in(tmp_path) == {source.file for source in sources}
    asked = len(origin.requests)
    assert bring(origin, tmp_path, *sources) == 0
    assert len(origin.requests) == asked
    (tmp_path / "logs/d.log").write_bytes(b"z" * 70_000)
    assert bring(origin, tmp_path, *sources) == 1
    assert (tmp_path / "logs/d.log").read_bytes() == b"y" * 70_000


def test_only_the_named_folders(origin: Origin, tmp_path: Path) -> None:
    sources = [listed(origin), listed(origin, "logs/b.log", b"x", "b.log")]
    assert fetch(tmp_path, base_url=origin.url + "/", only=["logs"], sources=sources) == 1
    assert files_in(tmp_path) == {"logs/b.log"}


def test_a_server_that_dies_midway_is_resumed(origin: Origin, tmp_path: Path) -> None:
    origin.break_after = [100_000, 50_000, 0, 1]
    bring(origin, tmp_path, listed(origin))
    assert (tmp_path / "metrics/a.csv").read_bytes() == CONTENT
    assert [asked for _, asked in origin.requests] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
        "bytes=150000-",
        "bytes=150001-",
    ]


def test_an_interrupted_run_is_resumed_by_the_next(origin: Origin, tmp_path: Path) -> None:
    origin.break_after = [100_000, 0, 0, 0, 0]
    source = listed(origin)
    with pytest.raises(DataFetchError, match=r"run it again to resume"):
        bring(origin, tmp_path, source)
    assert files_in(tmp_path) == {"metrics/a.csv.partial"}
    origin.break_after = []
    origin.requests.clear()
    bring(origin, tmp_path, source)
    assert [asked for _, asked in origin.requests] == ["bytes=100000-"]
    assert files_in(tmp_path) == {"metrics/a.csv"}
    assert (tmp_path / "metrics/a.csv").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_again(origin: Origin, tmp_path: Path) -> None:
    origin.ranges = False
    origin.break_after = [100_000]
    bring(origin, tmp_path, listed(origin))
    assert (tmp_path / "metrics/a.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("rest", [b"old" * 1000, CONTENT[::-1], CONTENT + b"more", CONTENT])
def test_whatever_an_earlier_run_left_does_no_harm(
    origin: Origin, tmp_path: Path, rest: bytes
) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/a.csv.partial").write_bytes(rest)
    bring(origin, tmp_path, listed(origin))
    assert (tmp_path / "metrics/a.csv").read_bytes() == CONTENT
    assert files_in(tmp_path) == {"metrics/a.csv"}


def test_a_busy_server_is_asked_again(origin: Origin, tmp_path: Path) -> None:
    origin.busy = 2
    assert bring(origin, tmp_path, listed(origin)) == 1
    origin.busy = 10
    with pytest.raises(DataFetchError, match=r"HTTP 503, 4 times"):
        bring(origin, tmp_path, listed(origin, "metrics/b.csv"))


def test_another_content_is_refused(origin: Origin, tmp_path: Path) -> None:
    source = listed(origin)
    for wrong, reason in (
        (CONTENT[::-1], "sha256"),
        (CONTENT + b"x", r"expected 307,200 bytes, got a longer file"),
        (CONTENT[:-1], "307,199"),
    ):
        origin.files["/owner/name/abc123/data/a.csv"] = wrong
        with pytest.raises(DataFetchError, match=reason):
            bring(origin, tmp_path, source)
        assert "metrics/a.csv" not in files_in(tmp_path)


def test_a_missing_file_fails_at_once_and_stops_the_rest(origin: Origin, tmp_path: Path) -> None:
    present = [listed(origin, f"logs/{i}.log", b"x" * i, f"{i}.log") for i in range(40)]
    absent = SourceFile("metrics/no.csv", "owner/name", "abc123", "no.csv", "0" * 64, 5)
    with pytest.raises(DataFetchError, match=r"no\.csv.*HTTP 404"):
        bring(origin, tmp_path, absent, *present)
    assert sum("no.csv" in path for path, _ in origin.requests) == 1
    assert len(origin.requests) < len(present)


def test_an_empty_file_is_fetched_like_any_other(origin: Origin, tmp_path: Path) -> None:
    bring(origin, tmp_path, listed(origin, "logs/empty.log", b"", "empty.log"))
    assert (tmp_path / "logs/empty.log").read_bytes() == b""


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    arguments = ["data", "fetch", "--into", str(tmp_path / "data"), "--base-url", url, "--quiet"]
    assert main(arguments) == DataFetchError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("error: a public file could not be fetched at " + url)
    assert "PRESAGE_DATA=" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://[bad"])
def test_a_base_url_that_is_none(origin: Origin, tmp_path: Path, url: str) -> None:
    with pytest.raises(DataFetchError):
        fetch(tmp_path, base_url=url, sources=[listed(origin)], progress=False)


def test_a_folder_that_cannot_be_written(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file where a folder is due")
    with pytest.raises(DataFetchError, match="metrics"):
        bring(origin, tmp_path, listed(origin))


@pytest.mark.parametrize("file", ["../a", "/etc/a", "a/../../b", ""])
def test_no_listed_file_leaves_the_folder(tmp_path: Path, file: str) -> None:
    table = tmp_path / "sources.tsv"
    header = "file\trepository\tcommit\tpath\tsha256\tbytes\n"
    table.write_text(header + f"{file}\towner/name\tabc\tx\t{'0' * 64}\t1\n")
    with pytest.raises(DataFetchError, match="outside the data folder"):
        read_sources(table)


def test_the_shipped_list_is_pinned(capsys: pytest.CaptureFixture[str]) -> None:
    sources = read_sources()
    assert len({source.file for source in sources}) == len(sources) > 100
    for source in sources:
        assert len(source.commit) == 40
        assert len(source.sha256) == 64
        assert source.size_bytes > 0
        assert source.file.split("/")[0] in {"metrics", "logs", "rca"}
    assert main(["data", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(sources)


@pytest.mark.skipif("PRESAGE_DATA" not in os.environ, reason="PRESAGE_DATA names no data")
def test_the_listed_files_arrive_as_they_are(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All listed files that the data folder holds, through the command and its variable."""
    folder = Path(os.environ["PRESAGE_DATA"])
    for source in read_sources():
        if (folder / source.file).is_file():
            origin.files[f"/{source.repository}/{source.commit}/{source.path}"] = (
                folder / source.file
            ).read_bytes()
    if len(origin.files) < len({(s.repository, s.commit, s.path) for s in read_sources()}):
        pytest.skip("PRESAGE_DATA does not hold every listed file")
    monkeypatch.setenv("PRESAGE_DATA_URL", origin.url)
    assert main(["data", "fetch", "--into", str(tmp_path), "--quiet"]) == 0
    assert files_in(tmp_path) - {FETCHED_MARK} == {source.file for source in read_sources()}


def test_check_names_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, logs = tmp_path / "good.csv", tmp_path / "bad.csv", tmp_path / "logs.tsv"
    good.write_text("timestamp,value\n0,1\n60,2\n")
    bad.write_text("timestamp,value\n0,1\n60,two\n")
    logs.write_text("异常\tdisk gone\nnormal\tfine\nwhat\tis this\n")
    assert main(["data", "check", str(good)]) == 0
    assert "2 rows" in capsys.readouterr().out
    assert main(["data", "check", str(good), str(bad), str(logs)]) == 2
    said = capsys.readouterr().out
    assert f"{bad}:3: value: 'two' is not a finite number" in said
    assert f"{logs}:3: unknown label 'what'" in said
    assert main(["data", "check", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
