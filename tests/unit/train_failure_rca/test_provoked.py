"""Programs that really fail: a few run here, all of them stand in the committed snapshot."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.corpus.provoke.__main__ import SNAPSHOT
from training.train_failure_rca.corpus.provoke.harness import (
    ProvokeError,
    all_scenarios,
    provoke,
    runnable,
)
from training.train_failure_rca.corpus.provoke.normalise import cut, normalise
from training.train_failure_rca.corpus.provoke.scenario import Scenario, python

# One or two of most themes, none that waits or imports much.
FAST = (
    "argparse-unrecognized",
    "bare-sigkill",
    "checksum",
    "command-not-found",
    "concatenate-types",
    "json-training",
    "numpy-allocate",
    "pip-conflict",
    "python-write-full",
    "python-write-quota",
    "requests-401",
    "script-not-executable",
    "socket-refused",
    "stdout-full",
    "yaml-tab",
)
SIZE_LIMIT_BYTES = 1_500_000
# Folders and names of whatever machine made the snapshot.
MACHINE = re.compile(
    r"(?<![\w.-])/(?:work|root|tmp/w|tmp/provoke|github|builds|runner)/|\.pyenv|\.venv|provoke-\w{8}"
)

Row = dict[str, object]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    lines = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    return {row["scenario"]: row for row in map(json.loads, lines)}


def decisive(row: Row, label: str | None = None) -> list[str]:
    """The decisive lines' text, digits and what comes before the message masked."""
    lines = str(row["text"]).split("\n")
    numbers = row["proofs"][label] if label else row["decisive_lines"]  # type: ignore[index]
    return [re.sub(r"\d+", "0", lines[number - 1]) for number in numbers]


@pytest.mark.parametrize("name", FAST)
def test_a_program_fails_as_the_snapshot_says(name: str, rows: dict[str, Row]) -> None:
    scenario = all_scenarios()[name]
    able, lacking = runnable([scenario])
    if not able:
        pytest.skip(f"this machine offers no {', '.join(lacking[name])}")
    fresh = provoke(scenario).as_row()
    kept = rows[name]
    for key in ("labels", "root", "family", "origin", "failed"):
        assert fresh[key] == kept[key], key
    assert decisive(fresh) == decisive(kept)


def test_snapshot_holds_every_scenario_and_what_it_declares(rows: dict[str, Row]) -> None:
    scenarios = all_scenarios()
    assert list(rows) == list(scenarios), "rerun: make corpus"
    for name, row in rows.items():
        scenario = scenarios[name]
        assert row["labels"] == list(scenario.labels)
        assert row["root"] == scenario.root
        assert row["family"] == scenario.family
        lines = str(row["text"]).split("\n")
        for label, patterns in scenario.proofs.items():
            proving = [lines[number - 1] for number in row["proofs"][label]]  # type: ignore[index]
            assert proving, name
            for pattern in patterns:
                assert any(re.search(pattern, line) for line in proving), (name, pattern)
            assert all(any(re.search(p, line) for p in patterns) for line in proving), name


def test_snapshot_is_large_enough_and_small_enough(rows: dict[str, Row]) -> None:
    assert SNAPSHOT.stat().st_size <= SIZE_LIMIT_BYTES
    labels = {label for row in rows.values() for label in row["labels"]}  # type: ignore[attr-defined]
    assert labels <= set(LABELS)
    assert sum(bool(row["labels"]) for row in rows.values()) >= 150
    assert sum(not row["failed"] for row in rows.values()) >= 25
    assert all(not row["labels"] for row in rows.values() if not row["failed"])
    several = [row for row in rows.values() if len(row["labels"]) > 1]  # type: ignore[arg-type]
    assert len(several) >= 15
    texts = {re.sub(r"\d+", "0", str(row["text"])) for row in rows.values()}
    assert len(texts) == len(rows), "two scenarios print the same"


def test_snapshot_names_no_machine(rows: dict[str, Row]) -> None:
    for name, row in rows.items():
        found = MACHINE.search(str(row["text"]))
        assert found is None, f"{name}: {found and found[0]}"


def test_no_two_families_share_their_proof(rows: dict[str, Row]) -> None:
    """Else the wording of a family that is held out stands in the training data."""
    families: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows.values():
        root = row["root"]
        if root is None:
            continue
        for line in decisive(row, str(root)):
            message = re.sub(r"^.*?(?=\b[A-Za-z.]+(?:Error|Exception)\b)", "", line)
            families[str(root), message].add(str(row["family"]))
    shared = {key: sorted(names) for key, names in families.items() if len(names) > 1}
    assert not shared


def _scenario(code: str, pattern: str, **more: object) -> Scenario:
    return python("probe", "probe", {"Config_Error": pattern}, code, **more)


def test_a_pattern_that_matches_nothing_is_loud() -> None:
    with pytest.raises(ProvokeError, match="probe: no line matches 'no such line'"):
        provoke(_scenario("raise SystemExit('out of luck')", "no such line"), attempts=1)


def test_a_program_that_succeeds_against_expectation_is_loud() -> None:
    with pytest.raises(ProvokeError, match="probe: ended with 0, expected a failure"):
        provoke(_scenario("print('fine')", "fine"), attempts=1)


def test_a_program_that_hangs_is_ended_with_its_descendants(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"""
        import subprocess, time
        child = subprocess.Popen(["sleep", "987.25"])
        open({str(note)!r}, "w").write(str(child.pid))
        time.sleep(100)
        """
    with pytest.raises(ProvokeError, match=r"probe: still running after 3.0 s"):
        provoke(_scenario(code, "never", timeout_seconds=3.0), attempts=1)
    assert note.read_text()
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            running.append(path.read_bytes())
    assert not any(b"987.25" in line for line in running)


def test_paths_of_this_machine_become_others() -> None:
    text = f"{Path('/scratch/x')}/train.py {sys.prefix}/bin/python {Path.home()}/data"
    seen = normalise(text, scenario="probe", folder=Path("/scratch/x"))
    assert "/scratch/x" not in seen
    assert sys.prefix not in seen
    assert seen.endswith("/train.py " + seen.split()[1] + " /home/liwei/data")


def test_cutting_keeps_head_tail_and_proofs() -> None:
    lines = [f"line {number}" for number in range(1, 1001)]
    short, proofs = cut(lines, {"OOM": [500]})
    assert len(short) < 200
    assert short[0] == "line 1"
    assert short[-1] == "line 1000"
    assert [short[number - 1] for number in proofs["OOM"]] == ["line 500"]
