"""A reference to a file reads what lies below the named folders, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contract.errors import InputError
from services.job_diagnosis.evidence import FileReference
from services.job_diagnosis.sources.file import FileSource


def reference(path: Path | str) -> FileReference:
    return FileReference(source="file", path=str(path))


def test_files_below_its_folders(tmp_path: Path) -> None:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    log = tmp_path / "logs" / "deep" / "job.log"
    log.write_bytes(b"x" * (3 << 20))
    (tmp_path / "logs" / "link").symlink_to(log)
    source = FileSource([tmp_path / "logs"])
    for path in (log, tmp_path / "logs" / "link", tmp_path / "logs" / "deep" / ".." / "link"):
        assert b"".join(source.fetch(reference(path)).log) == log.read_bytes()


def test_nothing_else_and_nobody_learns_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    (tmp_path / "logs" / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "logs" / "pipe")
    source = FileSource([tmp_path / "logs"])
    said = set()
    for path in (
        secret,
        tmp_path / "logs" / "link",
        tmp_path / "logs" / ".." / "secret",
        tmp_path / "logs",
        tmp_path / "logs" / "pipe",
        tmp_path / "logs" / "none",
        tmp_path / "logs-2",
        "/etc/passwd",
        "/dev/zero",
        "a\0b",
    ):
        with pytest.raises(InputError) as raised:
            source.fetch(reference(path))
        said.add(str(raised.value))
    assert len(said) == 1
