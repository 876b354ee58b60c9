"""Who runs when: all at once up to the limit, again after the interval, never twice at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from script_exporter.config import Collector, CollectorSettings
from script_exporter.process import RunResult
from script_exporter.schedule import Schedule
from tests.fixtures.endpoints import wait_until


def collector(name: str, script: str, interval: float = 3600.0) -> Collector:
    settings = CollectorSettings(script_path=script)
    return Collector("c", name, ("bash", "-c", script), settings, interval, 30.0, 300.0)


class Runs:
    """What has finished, and a schedule that tells it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, list[RunResult]] = {}
        self.skips: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.schedule = Schedule(self._finished, self._skipped)

    def configure(self, *collectors: Collector, concurrency: int = 4) -> None:
        self.schedule.configure(collectors, concurrency, self.folder)

    def count(self, name: str) -> int:
        return len(self.results.get(name, []))

    def _finished(self, collector: Collector, result: RunResult) -> None:
        with self._lock:
            self.results.setdefault(collector.name, []).append(result)

    def _skipped(self, collector: Collector, times: int) -> None:
        self.skips[collector.name] += times


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    found = Runs(tmp_path / "state")
    found.schedule.start()
    yield found
    assert found.schedule.stop(20)


def test_each_runs_at_once_and_then_by_its_interval(runs: Runs) -> None:
    runs.configure(collector("often", "true", 0.2), collector("once", "true"))
    wait_until(lambda: runs.count("often") >= 4 and runs.count("once"))
    assert runs.count("once") == 1


def test_no_more_than_the_limit_at_a_time(runs: Runs, tmp_path: Path) -> None:
    # Each says how many are in the folder while it is there itself.
    here = tmp_path / "in"
    here.mkdir()
    script = f"touch {here}/$$; ls {here} | wc -l; sleep 0.1; rm {here}/$$"
    runs.configure(*(collector(f"n{n}", script) for n in range(12)), concurrency=3)
    wait_until(lambda: len(runs.results) == 12)
    seen = [int(results[0].stdout) for results in runs.results.values()]
    assert 1 < max(seen) <= 3


def test_a_slow_script_is_never_started_twice_and_holds_up_nobody(
    runs: Runs, tmp_path: Path
) -> None:
    alone = f"mkdir {tmp_path}/lock || exit 9; sleep 0.5; rmdir {tmp_path}/lock"
    runs.configure(collector("slow", alone, 0.1), collector("quick", "true", 0.1))
    wait_until(lambda: runs.count("slow") >= 3)
    assert {result.reason for result in runs.results["slow"]} == {"ok"}
    assert runs.skips["slow"] >= 6
    assert runs.count("quick") > runs.count("slow")


def test_a_reload_ends_what_is_gone_and_leaves_what_stays(runs: Runs, tmp_path: Path) -> None:
    stays = collector("stays", "true")
    hangs = collector("hangs", f"touch {tmp_path}/on; sleep 3000")
    runs.configure(stays, hangs)
    wait_until(lambda: (tmp_path / "on").exists() and runs.count("stays"))
    assert runs.schedule.running == 1
    runs.configure(collector("stays", "true"), collector("new", "true"))
    wait_until(lambda: runs.schedule.running == 0 and runs.count("new"))
    assert runs.count("stays") == 1, "it has not changed, so it keeps its time"
    assert runs.count("hangs") == 0, "nobody waits for its result"


def test_a_changed_script_runs_at_once(runs: Runs) -> None:
    runs.configure(collector("a", "echo 1"))
    wait_until(lambda: runs.count("a") == 1)
    runs.configure(collector("a", "echo 2"))
    wait_until(lambda: runs.count("a") == 2)
    assert runs.results["a"][-1].stdout == b"2\n"


def test_a_script_finds_a_folder_of_its_own(runs: Runs) -> None:
    runs.configure(collector("a/../b", 'cd "$SCRIPT_EXPORTER_STATE_DIR" && pwd'))
    wait_until(lambda: runs.count("a/../b"))
    folder = Path(runs.results["a/../b"][0].stdout.decode().strip())
    assert folder.parent == runs.folder / "c"
    assert folder.is_dir()


def test_stop_ends_what_runs(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.configure(collector("hangs", f"touch {tmp_path}/on; sleep 3000"))
    runs.schedule.start()
    wait_until(lambda: (tmp_path / "on").exists())
    assert runs.schedule.stop(20)
    assert runs.schedule.running == 0


class Immortal:
    """A run whose script hangs in the kernel."""

    is_alive = True


def test_a_script_that_hangs_in_the_kernel_gets_no_companion(runs: Runs) -> None:
    stuck = collector("stuck", "true", 0.1)
    runs.configure(stuck)
    wait_until(lambda: runs.count("stuck"))
    job = runs.schedule._jobs[stuck.key]
    # No script of a test can hang in the kernel: this one is said to.
    job.run = Immortal()  # type: ignore[assignment]
    wait_until(lambda: runs.results["stuck"][-1].reason == "stuck")
    job.run = None
    wait_until(lambda: runs.results["stuck"][-1].reason == "ok")
