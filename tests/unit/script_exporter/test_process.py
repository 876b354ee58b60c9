"""Scripts that hang, fork, flood, daemonise and die: each run ends, and nobody is left behind."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from script_exporter.process import RunLimits, RunResult, ScriptRun
from tests.fixtures.endpoints import wait_until

SHORT = RunLimits(timeout_seconds=0.6)
LONG = RunLimits(timeout_seconds=60.0)


def shell(script: str, limits: RunLimits = LONG, **more: str) -> RunResult:
    return ScriptRun(["bash", "-c", script], limits, **more).run()


def named(word: str) -> list[int]:
    """Living processes whose command line has the word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def word() -> str:
    """A number of seconds nobody else sleeps."""
    return f"9{time.time_ns() % 10**9}"


def test_only_stdout_is_kept_and_stderr_is_counted() -> None:
    result = shell("echo 'a 1'; echo warming up >&2; echo; printf 'no newline' >&2; echo 'b 2'")
    assert (result.reason, result.exit_code) == ("ok", 0)
    assert result.stdout == b"a 1\n\nb 2\n"
    assert (result.stderr_lines, result.stderr_last) == (1, "no newline")


def test_an_exit_code_and_a_signal_are_told() -> None:
    result = shell("echo 'a 1'; exit 3")
    assert (result.reason, result.exit_code, result.stdout) == ("exit", 3, b"")
    assert result.detail == "exit code 3"
    result = shell("kill -SEGV $$")
    assert (result.reason, result.exit_code) == ("signal", -11)


def test_a_script_that_hangs_is_killed_with_all_its_children(word: str) -> None:
    result = shell(f"sleep {word} & sleep {word} | sleep {word}", SHORT)
    assert (result.reason, result.exit_code) == ("timeout", -9)
    assert "0.6 s" in result.detail
    assert not named(word)


def test_a_script_that_ignores_signals_is_killed_too() -> None:
    assert shell("trap '' TERM INT HUP; while :; do sleep 0.1; done", SHORT).reason == "timeout"


def test_children_that_leave_the_group_are_found(word: str) -> None:
    result = shell(f"setsid setsid sleep {word} & (setsid sleep {word} &) ; sleep {word}", SHORT)
    assert result.reason == "timeout"
    assert not named(word)


def test_a_background_job_does_not_hold_up_the_run(word: str) -> None:
    began = time.monotonic()
    result = shell(f"sleep {word} & echo 'a 1'")
    assert (result.reason, result.stdout) == ("ok", b"a 1\n")
    assert time.monotonic() - began < 20
    wait_until(lambda: not named(word), what="killed with its group")


def test_a_script_without_pipes_is_still_waited_for(tmp_path: Path) -> None:
    result = shell(f"exec >&- 2>&-; sleep 0.3; touch {tmp_path}/done")
    assert result.reason == "ok"
    assert (tmp_path / "done").exists()


def test_a_flood_of_100_megabytes_is_cut_off() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = shell("head -c 100000000 /dev/zero; sleep 60")
    assert (result.reason, result.stdout) == ("output", b"")
    assert "2097152 bytes" in result.detail
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 30_000, f"{grown} KB for a flood"


def test_a_flood_on_stderr_costs_no_memory_and_no_result() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = shell("yes 'warning: x' | head -c 100000000 >&2; echo 'a 1'")
    assert (result.reason, result.stdout) == ("ok", b"a 1\n")
    assert result.stderr_bytes == 100_000_000
    assert result.stderr_last == "w", "cut off in its last line"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_output_of_exactly_the_limit_is_taken() -> None:
    limits = RunLimits(timeout_seconds=60, output_bytes=1000)
    assert shell("head -c 1000 /dev/zero", limits).reason == "ok"
    assert shell("head -c 1001 /dev/zero", limits).reason == "output"


# Each ends by itself after 300 processes: the kernel bounds no bomb of root's, and one that is not
# put out would cost everybody the machine.
BOMBS = {
    "in the group": "for n in {1..300}; do sleep 60 & done; sleep 60",
    "in children": "for n in {1..15}; do (for m in {1..20}; do sleep 60 & done; wait) & done; wait",
    "away from the group": "for n in {1..300}; do setsid sleep 60 & done; sleep 60",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_script_that_forks_too_often_is_put_out(name: str, word: str) -> None:
    result = shell(BOMBS[name].replace("sleep 60", f"sleep {word}"))
    assert result.reason == "processes"
    assert "more than 64" in result.detail
    wait_until(lambda: not named(word), what="nobody left of the bomb")
    assert shell("echo 'a 1'").stdout == b"a 1\n"


def test_many_processes_one_after_the_other_are_no_bomb() -> None:
    result = shell("for n in {1..300}; do /bin/true; done; echo 'a 1'")
    assert (result.reason, result.stdout) == ("ok", b"a 1\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_of_its_own_and_the_kernels_limit_on_its_processes() -> None:
    assert shell("id -un; id -G", user="nobody").stdout.split()[0] == b"nobody"
    assert b" " not in shell("id -G", user="nobody").stdout.strip(), "none of our groups"
    limits = RunLimits(timeout_seconds=60, processes=20, own_user=True)
    assert shell("ulimit -u", limits, user="nobody").stdout == b"20\n"
    result = shell("true", user="no-such-user")
    assert result.reason == "spawn"
    assert "no user 'no-such-user'" in result.detail


def test_memory_is_limited_where_it_is_asked_for() -> None:
    limits = RunLimits(timeout_seconds=60, memory_bytes=300 << 20)
    result = ScriptRun(["python3", "-S", "-c", "x = bytearray(1 << 30)"], limits).run()
    assert (result.reason, result.stderr_last) == ("exit", "MemoryError")


def test_a_missing_program_is_said() -> None:
    result = ScriptRun(["/no/such"], LONG).run()
    assert (result.reason, result.exit_code) == ("exit", 127)
    assert "not found" in result.stderr_last


def test_arguments_and_environment_arrive_as_they_are() -> None:
    result = ScriptRun(
        ["bash", "-c", 'printf "%s|" "$0" "$@" "$A"', "it's", "$HOME `id`", "*"],
        LONG,
        environment={"A": "1 2", "PATH": os.environ["PATH"]},
    ).run()
    assert result.stdout == b"it's|$HOME `id`|*|1 2|"


def test_cancel_ends_a_run(word: str) -> None:
    run = ScriptRun(["bash", "-c", f"sleep {word}"], LONG)
    found: list[RunResult] = []
    thread = threading.Thread(target=lambda: found.append(run.run()))
    thread.start()
    wait_until(lambda: named(word), what="it runs")
    run.cancel()
    thread.join(20)
    assert [result.reason for result in found] == ["cancelled"]
    assert not named(word)
    assert not run.is_alive
