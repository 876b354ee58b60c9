"""Which models a server should serve and does not."""

from __future__ import annotations

import pytest

from clients.server import ModelState, not_ready


def state(name: str, version: str, state: str, reason: str = "") -> ModelState:
    return ModelState(name, version, state, reason)


@pytest.mark.parametrize(
    ("states", "broken"),
    [
        ([state("a", "1", "READY"), state("b", "1", "READY")], []),
        # An older version that gave way to a newer one.
        ([state("a", "1", "UNAVAILABLE", "unloaded"), state("a", "2", "READY")], []),
        # In the repository, but nobody asked for it.
        ([state("a", "1", "READY"), state("b", "", "")], []),
        ([state("a", "1", "READY"), state("b", "1", "UNAVAILABLE", "unloaded")], []),
        # One of many that does not load: its neighbours must not vouch for it.
        ([state("a", "1", "READY"), state("b", "3", "UNAVAILABLE", "no model file")], ["b"]),
        ([state("a", "1", "READY"), state("b", "1", "LOADING")], ["b"]),
    ],
)
def test_a_model_that_should_answer_and_does_not_is_named(
    states: list[ModelState], broken: list[str]
) -> None:
    assert not_ready(states) == broken
