"""Files that are written, rotated, truncated, gone and back: each line once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.log_pipeline.lines import Oddities
from services.log_pipeline.tail import FollowedFile


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.odd = Oddities()

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def follow(self, *, from_start: bool = True) -> FollowedFile:
        return FollowedFile(self.path, self.odd, from_start=from_start, clock=lambda: self.now)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.log")


def test_only_what_is_new(log: Log) -> None:
    log.write("old\n")
    file = log.follow(from_start=False)
    log.write("new\n")
    assert file.read() == [b"new"]
    assert file.read() == []
    assert log.follow().read() == [b"old", b"new"]


def test_a_half_written_line_waits_for_its_rest(log: Log) -> None:
    log.write("one\ntw")
    file = log.follow()
    assert file.read() == [b"one"]
    assert file.read() == []
    log.write("o\n")
    assert file.read() == [b"two"]
    log.write("never ended")
    assert file.read() == []
    log.now += 10
    assert file.read() == [b"never ended"]
    assert log.odd == {"unterminated": 1}


def test_rotation_by_renaming_loses_nothing(log: Log) -> None:
    log.write("1\n")
    file = log.follow()
    assert file.read() == [b"1"]
    log.write("2\n")
    moved = log.path.rename(log.path.with_suffix(".1"))
    # The writer still holds the old file, and writes once more.
    with moved.open("a") as old:
        old.write("3\n")
    assert file.read() == [b"2", b"3"]
    assert file.read() == []
    log.write("4\n")
    assert file.read() == [b"4"]
    assert log.odd["rotated"] == 1


def test_rotation_by_truncation(log: Log) -> None:
    log.write("a long first line\n")
    file = log.follow()
    file.read()
    log.path.write_text("b\n")
    assert file.read() == [b"b"]
    assert log.odd["truncated"] == 1


def test_a_file_that_comes_later(log: Log) -> None:
    file = log.follow(from_start=False)
    assert file.read() == []
    log.write("first\n")
    assert file.read() == [b"first"]


def test_a_line_without_end_takes_no_memory(log: Log) -> None:
    file = log.follow()
    log.write("x" * 200_000)
    assert [line[:1] for line in file.read()] == [b"x"]
    log.write("x" * 200_000)
    assert file.read() == []
    log.write("\nnext\n")
    assert file.read() == [b"next"]
    assert log.odd["long"] == 1


def test_what_is_written_last_is_told(log: Log) -> None:
    file = log.follow()
    log.write("one\ntwo")
    assert file.close() == [b"one", b"two"]
