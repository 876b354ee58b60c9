"""The other client: its report, its libraries, and when two clients agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import ServerAnswerError, ServerSetupError
from loadtest.load.cross_check import CrossCheck, CrossCheckSettings, cross_check_table
from loadtest.load.perf_analyzer import (
    LIBRARIES,
    PerfFigures,
    _link_libraries,
    find_perf_analyzer,
    read_latencies,
)

REPORT = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency\n"
    "8,418.25,1,2,3,4,5,6,7,12430,20000,30000,110060\n"
)
SETTINGS = CrossCheckSettings("", "", Path(), Path())


def test_its_report_is_read() -> None:
    assert read_latencies(REPORT) == PerfFigures(418.25, 12.43, 110.06)
    for broken in ("", "a,b\n1,2\n", REPORT + REPORT.splitlines()[1] + "\n"):
        with pytest.raises(ServerAnswerError):
            read_latencies(broken)


@pytest.mark.parametrize(
    ("rate", "p50", "agrees"),
    [(100, 10, True), (85, 11.5, True), (75, 10, False), (100, 13, False), (125, 10, False)],
)
def test_agreement_is_within_a_fifth_of_both(rate: float, p50: float, agrees: bool) -> None:
    theirs = [PerfFigures(100, 10, 20)] * 3
    ours = [PerfFigures(rate, p50, 90), PerfFigures(rate, p50, 90), PerfFigures(1, 999, 90)]
    result = CrossCheck("a_model", ours, theirs)
    assert result.agrees is agrees
    table = cross_check_table(result, SETTINGS)
    assert ("DO NOT agree" in table) == (not agrees)
    assert "| requests/s |" in table


def test_where_it_cannot_run_the_table_says_why() -> None:
    result = CrossCheck("a_model", why_not="perf_analyzer needs libcudart.so.12")
    assert result.agrees is None
    told = cross_check_table(result, SETTINGS)
    assert "not measured: perf_analyzer needs libcudart.so.12" in told
    assert "ratio" not in told


def test_libraries_are_linked_by_the_names_it_asks_for(tmp_path: Path) -> None:
    with pytest.raises(ServerSetupError, match=r"libcudart\.so\.12.*embedded_triton install"):
        _link_libraries(tmp_path, tmp_path)
    libraries = tmp_path / "venv/lib/python3.11/site-packages/nvidia_pytriton.libs"
    libraries.mkdir(parents=True)
    for beginning in LIBRARIES.values():
        (libraries / f"{beginning}0123.so.1").write_bytes(b"x")
    _link_libraries(tmp_path, tmp_path / "venv")
    _link_libraries(tmp_path, tmp_path / "venv")
    assert all((tmp_path / name).read_bytes() == b"x" for name in LIBRARIES)


def test_a_program_that_does_not_start_is_told(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    program.chmod(0o755)
    for name in LIBRARIES:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ServerSetupError, match=r"does not start.*no such library"):
        find_perf_analyzer(tmp_path, tmp_path)
