"""Files below the folders of the settings, and no other file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contract.errors import ConfigError, InputError
from services.job_diagnosis.evidence import FileReference
from services.job_diagnosis.sources.file import FileSource


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/job.log").write_text("line 1\nline 2\n")
    (tmp_path / "secret.log").write_text("secret")
    (tmp_path / "logs-of-others").mkdir()
    (tmp_path / "logs-of-others/x.log").write_text("secret")
    return folder


def read(source: FileSource, path: str) -> bytes:
    log = source.fetch(FileReference(source="file", path=path)).log
    assert not isinstance(log, bytes)
    return b"".join(log)


def test_relative_absolute_and_linked(root: Path) -> None:
    (root / "link.log").symlink_to("deep/job.log")
    source = FileSource([root])
    for path in ("deep/job.log", str(root / "deep/job.log"), "link.log", "deep/../link.log"):
        assert read(source, path) == b"line 1\nline 2\n"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.log",
        "deep/../../secret.log",
        "../logs-of-others/x.log",
        "/etc/passwd",
        "escape.log",
        "folder/x.log",
        "nothing.log",
        "deep",
        "pipe",
        "dangling.log",
        "loop.log",
        "a\0b",
        "deep/job.log/x",
        "x" * 4000,
        "/proc/self/environ",
        "\ud800",
    ],
)
def test_whatever_is_elsewhere_is_refused_in_the_same_words(root: Path, path: str) -> None:
    (root / "escape.log").symlink_to("../secret.log")
    (root / "folder").symlink_to("../logs-of-others")
    (root / "dangling.log").symlink_to("nowhere")
    (root / "loop.log").symlink_to("loop.log")
    os.mkfifo(root / "pipe")
    source = FileSource([root])
    with pytest.raises(InputError, match="no log to be read") as raised:
        source.fetch(FileReference.model_construct(source="file", path=path))
    assert raised.value.got is None


def test_a_link_that_changes_after_the_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is checked, then a folder in it becomes a link to elsewhere, then it is opened."""
    source = FileSource([root])
    candidates = source._candidates

    def swapped(path: str):  # type: ignore[no-untyped-def]
        for candidate in candidates(path):
            (root / "deep/job.log").unlink()
            (root / "deep").rmdir()
            (root / "deep").symlink_to("../logs-of-others")
            (root.parent / "logs-of-others/job.log").write_text("secret")
            yield candidate

    monkeypatch.setattr(source, "_candidates", swapped)
    with pytest.raises(InputError):
        source.fetch(FileReference(source="file", path="deep/job.log"))


def test_of_a_huge_file_the_beginning_and_the_end(root: Path) -> None:
    (root / "huge.log").write_bytes(b"".join(b"line %07d\n" % n for n in range(100_000)))
    lines = read(FileSource([root], largest_bytes=100_000), "huge.log").split(b"\n")
    assert lines[0] == b"line 0000000"
    assert lines[-2] == b"line 0099999"
    whole = [line for line in lines if len(line) == 12]
    assert 7_600 <= len(whole) <= 7_700
    # A gzip file is read as a whole: half of it could not be unpacked.
    (root / "huge.gz").write_bytes(b"\x1f\x8b" + b"x" * 200_000)
    assert len(read(FileSource([root], largest_bytes=100_000), "huge.gz")) == 200_002


def test_folders_that_are_none(root: Path) -> None:
    for folder in (root / "none", root / "deep/job.log"):
        with pytest.raises(ConfigError, match="read"):
            FileSource([folder])


def test_no_file_stays_open_that_nobody_reads(root: Path) -> None:
    source = FileSource([root])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(50):
        source.fetch(FileReference(source="file", path="deep/job.log"))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208
