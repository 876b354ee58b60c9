"""query_range's bytes: every shape that Prometheus, or something in between, may answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import ServerAnswerError
from services.forecast_loop.grid import Grid
from services.forecast_loop.range_answer import parse_range

NAN = float("nan")
GRID = Grid(3000, 300, 4)


def body(*series: tuple[dict[str, str], list[list[Any]]], **more: Any) -> dict[str, Any]:
    result = [{"metric": labels, "values": values} for labels, values in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}


def dense(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def points(*values: str, start: int = 3000) -> list[list[Any]]:
    return [[start + 300 * i, value] for i, value in enumerate(values)]


def test_series_in_their_order_gaps_missing() -> None:
    answer = parse_range(
        dense(
            body(
                ({"a": "1"}, points("1", "2", "3", "4e-3")),
                ({"a": "2"}, [[3300, "5"], [3900, "6"]]),
                ({"a": "3"}, []),
            )
        ),
        GRID,
        "here",
    )
    assert answer.labels == [{"a": "1"}, {"a": "2"}, {"a": "3"}]
    assert answer.values.dtype == np.float32
    expected = [[1, 2, 3, 4e-3], [NAN, 5, NAN, 6], [NAN] * 4]
    np.testing.assert_array_equal(answer.values, np.array(expected, dtype=np.float32))
    assert (answer.infinite, answer.warnings) == (0, ())


def test_what_is_no_finite_number_is_missing_and_counted() -> None:
    answer = parse_range(
        dense(
            body(
                ({"a": "1"}, points("NaN", "+Inf", "-Inf", "1")),
                ({"a": "2"}, points("1", "1e300", "2", "3")),  # infinite in float32
            )
        ),
        GRID,
        "here",
    )
    expected = [[NAN, NAN, NAN, 1], [1, NAN, 2, 3]]
    np.testing.assert_array_equal(answer.values, np.array(expected))
    assert answer.infinite == 3


def test_points_off_the_grid_are_dropped() -> None:
    series = ({}, [[2700, "9"], [3000, "1"], [3000.5, "9"], [3300, "2"], [4200, "9"]])
    answer = parse_range(dense(body(series)), GRID, "here")
    np.testing.assert_array_equal(answer.values, np.array([[1, 2, NAN, NAN]]))


def test_as_many_points_as_the_grid_but_other_ones() -> None:
    early = ({}, points("0", "1", "2", "3", start=2700))
    late = ({}, points("2", "3", "4", "5", start=3300))
    answer = parse_range(dense(body(early, late)), GRID, "here")
    np.testing.assert_array_equal(answer.values, np.array([[1, 2, 3, NAN], [NAN, 2, 3, 4]]))


def test_labels_that_look_like_numbers_of_the_answer() -> None:
    evil = '"values":[[1,"2"]]'
    answer = parse_range(dense(body(({"values": evil, "b": "]]"}, points("1")))), GRID, "here")
    assert answer.labels == [{"values": evil, "b": "]]"}]
    np.testing.assert_array_equal(answer.values, np.array([[1, NAN, NAN, NAN]]))


def test_warnings_are_handed_on() -> None:
    answer = parse_range(dense(body(warnings=["partial response"], infos=["slow"])), GRID, "here")
    assert answer.warnings == ("partial response", "slow")
    assert answer.values.shape == (0, 4)


@pytest.mark.parametrize("cut", [10, 60, 90, 120, -1])
def test_a_truncated_answer_is_refused(cut: int) -> None:
    whole = dense(body(({"a": "1"}, points("1", "2", "3", "4")), ({"a": "2"}, points("1"))))
    with pytest.raises(ServerAnswerError, match="here"):
        parse_range(whole[:cut], GRID, "here")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>502</html>",
        b"[]",
        dense({"status": "error", "error": "x"}),
        dense({"status": "success"}),
        dense({"status": "success", "data": {"resultType": "vector", "result": []}}),
        dense(body(({"a": "1"}, [[3000, "one"]]))),
        dense(body(({"a": "1"}, [[3000]]))),
        dense({"status": "success", "data": {"resultType": "matrix", "result": [{"values": []}]}}),
    ],
)
def test_anything_else_is_refused(answer: bytes) -> None:
    with pytest.raises(ServerAnswerError, match="Prometheus answered something else"):
        parse_range(answer, GRID, "here")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["values", "metric", "x"]), st.text(max_size=8)),
            st.lists(st.floats(width=32) | st.sampled_from([NAN, float("inf")]), max_size=4),
        ),
        max_size=4,
    )
)
def test_both_ways_of_reading_agree(series: list[tuple[dict[str, str], list[float]]]) -> None:
    """Written densely the numbers are cut out; with spaces after colons they are not."""
    said = {float("inf"): "+Inf", -float("inf"): "-Inf"}
    answer = body(
        *((labels, points(*(said.get(v, str(v)) for v in values))) for labels, values in series)
    )
    fast = parse_range(dense(answer), GRID, "here")
    slow = parse_range(json.dumps(answer).encode(), GRID, "here")
    assert fast.labels == slow.labels == [labels for labels, _ in series]
    np.testing.assert_array_equal(fast.values, slow.values)
    for row, (_, values) in zip(fast.values, series, strict=True):
        plain = np.array(values, dtype=np.float32)
        plain[np.isinf(plain)] = NAN
        np.testing.assert_array_equal(row[: len(values)], plain)
    assert fast.infinite == slow.infinite
