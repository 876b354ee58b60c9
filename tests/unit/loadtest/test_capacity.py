"""Replicas come from figures that README.md really has, and from no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import capacity


def test_every_figure_is_in_the_readme(repository_root: Path) -> None:
    text = (repository_root / "README.md").read_text("utf-8")
    for one in capacity.NEEDS:
        assert one.measured.quoted in text
    assert "**555 MB**" in text


@pytest.mark.parametrize(
    ("per_second", "units"), [(1, 1), (70, 1), (70.1, 2), (700, 10), (1_000_000, 14_286)]
)
def test_units_keep_the_headroom(per_second: float, units: int) -> None:
    measured = capacity.Measured("things", 100.0, "100")
    assert capacity.need("", per_second, measured).units == units


def test_a_loop_is_no_larger_than_one_that_was_measured() -> None:
    assert [capacity.loops(n) for n in (1, 100_000, 100_001, 1_000_000)] == [1, 1, 2, 10]


def test_the_committed_table_is_this_one(repository_root: Path) -> None:
    text = (repository_root / "deploy/k8s/README.md").read_text("utf-8")
    inside = text.split("<!-- capacity -->\n")[1].split("<!-- /capacity -->")[0]
    assert inside == capacity.capacity_table()


def test_nothing_is_said_of_gpus() -> None:
    rows = [row for row in capacity.capacity_table().splitlines() if row.startswith("| 1 million")]
    assert len(rows) == len(capacity.NEEDS)
    assert all(row.endswith("| not measured |") for row in rows)
