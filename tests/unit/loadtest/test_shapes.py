"""Stages of a run, and the moments at which requests are due."""

from __future__ import annotations

import numpy as np
import pytest

from contract.errors import InputError
from loadtest.load.shapes import SHAPES, Stage, arrivals, stage_index, stages_of


@pytest.mark.parametrize("shape", SHAPES)
def test_stages_fill_the_time(shape: str) -> None:
    stages = stages_of(shape, 120.0, 2.0)
    assert sum(stage.seconds for stage in stages) == pytest.approx(120.0)
    assert all(stage.seconds > 0 and stage.factor >= 0 for stage in stages)
    # A ramp is there to break: nothing is promised in it.
    assert any(stage.judged for stage in stages) == (shape != "ramp")


def test_a_ramp_rises_in_stages_long_enough_for_its_slowest_flow() -> None:
    stages = stages_of("ramp", 600.0, 1.0)
    factors = [stage.factor for stage in stages]
    assert factors == sorted(factors)
    assert factors[-1] > 3 * factors[0]
    assert stages[0].seconds * stages[0].factor * 1.0 >= 40


@pytest.mark.parametrize("wrong", [("steps", 10.0), ("step", 0.0)])
def test_what_makes_no_sense(wrong: tuple[str, float]) -> None:
    with pytest.raises(InputError):
        stages_of(*wrong)


@pytest.mark.parametrize("process", ["constant", "poisson"])
def test_as_many_are_due_as_the_rate_says_stage_by_stage(process: str) -> None:
    stages = (Stage("a", 10, 1.0), Stage("none", 5, 0.0), Stage("b", 10, 3.0))
    due = arrivals(stages, 100.0, process, np.random.default_rng(1))  # type: ignore[arg-type]
    assert (np.diff(due) >= 0).all()
    counts = np.bincount(stage_index(stages, due), minlength=3)
    slack = 1 if process == "constant" else 200
    assert counts[1] == 0
    assert abs(counts[0] - 1000) <= slack
    assert abs(counts[2] - 3000) <= slack
    assert due[0] >= 0
    assert due[-1] < 25


def test_poisson_gaps_are_uneven_and_even_ones_even() -> None:
    stages = (Stage("a", 100, 1.0),)
    even, uneven = (
        np.diff(arrivals(stages, 10.0, process, np.random.default_rng(0)))
        for process in ("constant", "poisson")
    )
    assert np.allclose(even, 0.1)
    # The gaps of a Poisson process spread as wide as they are long.
    assert uneven.std() == pytest.approx(uneven.mean(), rel=0.15)


def test_nothing_is_due_at_rate_zero() -> None:
    assert len(arrivals((Stage("a", 10, 0.0),), 5.0, "poisson", np.random.default_rng(0))) == 0


def test_the_fleets_minute_is_sent_before_it_is_over() -> None:
    stages = stages_of("fleet", 60.0)
    due = arrivals(stages, 10.0, "poisson", np.random.default_rng(0))
    assert abs(len(due) - 600) < 100
    assert due[-1] < 60 * 0.93
