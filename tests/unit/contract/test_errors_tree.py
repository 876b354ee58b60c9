"""The error tree: one exit code, HTTP status and metric label a class, and one-line messages."""

from __future__ import annotations

import inspect

from contract import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.PresageError)
]


def test_a_message_says_what_where_expected_got_and_next() -> None:
    error = errors.SeriesError(
        "series is infinite",
        where="series 3, step 17",
        expected="finite numbers or NaN",
        got="inf",
        next_command="clean the query",
    )
    assert str(error) == (
        "series is infinite at series 3, step 17: expected finite numbers or NaN, got inf;"
        " clean the query"
    )


def test_only_what_is_required() -> None:
    assert str(errors.PresageError("it broke")) == "it broke"


def test_every_class_is_drawn_in_the_tree() -> None:
    drawing = errors.__doc__ or ""
    assert [c.__name__ for c in CLASSES if c.__name__ not in drawing] == []


def test_exit_codes_separate_the_families() -> None:
    """Classes that share an exit code must be of one family, or a script could not tell them."""
    owners: dict[int, type[errors.PresageError]] = {}
    for cls in CLASSES:
        owner = owners.setdefault(cls.exit_code, cls)
        assert issubclass(cls, owner), f"{cls.__name__} shares {cls.exit_code} with {owner}"
    assert all(0 < code < 126 for code in owners)


def test_the_drawn_figures_are_the_real_ones() -> None:
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("├──", "").replace("└──", "").replace("│", "").split()
        if len(words) >= 4 and words[1].isdigit():
            cls = getattr(errors, words[0])
            assert (cls.exit_code, cls.http_status, cls.metric_label) == (
                int(words[1]),
                int(words[2]),
                words[3],
            )
