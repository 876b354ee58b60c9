"""A problem's parts: in full for whoever asked, none of what broke inside."""

from __future__ import annotations

import pytest

from contract.errors import (
    ConfigError,
    PresageError,
    RequestRefusedError,
    SeriesError,
    ServerAnswerError,
)
from services.web.problem import problem

PARTS = {"what", "where", "expected", "got", "next"}


def test_what_the_asker_did_is_told_in_parts_without_paths() -> None:
    told = problem(
        SeriesError(
            "bad series",
            where="series 3",
            expected="numbers",
            got="/etc/presage/secret.csv",
            next_command="leave it out",
        )
    )
    assert {name: told[name] for name in PARTS} == {
        "what": "bad series",
        "where": "series 3",
        "expected": "numbers",
        "got": "…",
        "next": "leave it out",
    }


def test_only_the_parts_that_are_known() -> None:
    told = problem(RequestRefusedError("too much", status=413, reason="body_size"))
    assert PARTS & set(told) == {"what"}


@pytest.mark.parametrize(
    "error",
    [
        PresageError("it broke", got="a secret"),
        ServerAnswerError("nonsense", got="a secret"),
        ConfigError("bad", got="a secret"),
    ],
)
def test_what_broke_inside_has_no_parts(error: PresageError) -> None:
    told = problem(error)
    assert not PARTS & set(told)
    assert "secret" not in str(told)
