"""The log pipeline's measurement: what it writes to be measured, and its table."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from contract.errors import InputError
from loadtest.services.log_pipeline_speed import (
    PipelineRun,
    Speed,
    distinct_lines,
    read_logs,
    speed_table,
    write_renumbered,
    write_repeated,
)

BASE = b"error 12 on core 3\nat 15:42:50\n"


def test_logs_are_read_as_whole_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="PRESAGE_DATA"):
        read_logs(tmp_path)
    (tmp_path / "a.log").write_bytes(b"one\r\ntwo")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.log").write_bytes(b"three\n")
    assert read_logs(tmp_path) == b"one\ntwo\nthree\n"


def test_repeated_and_renumbered(tmp_path: Path) -> None:
    assert write_repeated(tmp_path / "a", BASE, 5) == 6
    assert (tmp_path / "a").read_bytes() == BASE * 3
    assert write_renumbered(tmp_path / "b", BASE, 40) == 40
    written = (tmp_path / "b").read_bytes()
    assert written.count(b"\n") == 40
    assert len(set(written.split(b"\n"))) > 20
    first = written.split(b"\n")[0]
    assert first.startswith(b"error 1")
    assert first.endswith(b" on core 3")


def test_distinct_lines_never_repeat() -> None:
    lines = list(itertools.islice(distinct_lines(BASE, random.Random(0)), 500))
    words = {line.split(b" ")[0] for line in lines}
    assert len(words) == 500
    assert not any(set(word) & set(b"abcdef0123456789") for word in words)


def test_the_table_holds_ratios_to_the_seed_s_way() -> None:
    run = PipelineRun(1000, 0.5, 0.25, 0.4, (100.0, 150.0, 140.0, 150.0), 9, 3)
    speed = Speed({"repeated": run}, run, 40.0, 0.95, {1: 20.0, 8: 30.0}, 500, 0, 1e-7)
    table = speed_table(speed)
    assert (
        "| repeated, 1,000 | 2,000 | 100.0 | 4,000 | 150 MB | 150, 140, 150 MB | 9 | 3 |" in table
    )
    assert "in turns: 0.95×" in table
