"""The window of points: aligned, with gaps, duplicates, series that come and go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.forecast_loop.grid import Grid
from services.forecast_loop.series_store import Oddities, SeriesStore

NAN = float("nan")
STEP = 300


def make(columns: int = 6, max_series: int = 4, fresh_columns: int = 3) -> SeriesStore:
    return SeriesStore(
        ("cluster", "group"),
        columns=columns,
        step_seconds=STEP,
        max_series=max_series,
        fresh_columns=fresh_columns,
    )


def read(
    store: SeriesStore,
    end: int,
    series: dict[tuple[str, ...], list[float]],
    oddities: Oddities | None = None,
    may_join: bool = True,
) -> int:
    """Advance to column ``end``, then merge (cluster, group[, instance]) → newest points."""
    store.advance(end * STEP)
    store.begin()
    return merge(store, end, series, oddities, may_join)


def merge(
    store: SeriesStore,
    end: int,
    series: dict[tuple[str, ...], list[float]],
    oddities: Oddities | None = None,
    may_join: bool = True,
) -> int:
    points = len(next(iter(series.values())))
    grid = Grid((end - points + 1) * STEP, STEP, points)
    labels = [dict(zip(("cluster", "group", "instance"), key, strict=False)) for key in series]
    values = np.array(list(series.values()), dtype=np.float32)
    return store.merge(labels, grid, values, oddities or Oddities(), may_join=may_join)


def row(store: SeriesStore, *key: str) -> list[float]:
    index = store.row(key)
    assert index is not None, key
    return [float(value) for value in store.values[index]]


def same(found: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(np.array(found), np.array(expected))


def test_points_stand_in_their_columns_and_gaps_are_missing() -> None:
    store = make()
    read(store, 10, {("a", "x"): [1, 2, NAN, 4]})
    same(row(store, "a", "x"), [NAN, NAN, 1, 2, NAN, 4])
    read(store, 12, {("a", "x"): [6]})  # 11 was never read
    same(row(store, "a", "x"), [1, 2, NAN, 4, NAN, 6])
    assert store.newest_seconds() == 12 * STEP
    same([float(v) for v in store.at(9 * STEP)], [NAN])  # type: ignore[union-attr]
    same([float(v) for v in store.at(8 * STEP, steps=2)], [1.5])  # type: ignore[union-attr]
    assert store.at(6 * STEP) is None
    assert store.at(13 * STEP) is None


def test_a_long_answer_is_cut_to_the_window() -> None:
    store = make(columns=3)
    read(store, 5, {("a", "x"): [1, 2, 3, 4, 5]})
    same(row(store, "a", "x"), [3, 4, 5])


def test_an_older_piece_fills_the_past_and_brings_no_new_series() -> None:
    store = make()
    read(store, 10, {("a", "x"): [9, 10]})
    assert merge(store, 8, {("a", "x"): [7, 8], ("b", "y"): [1, 1]}, may_join=False) == 0
    same(row(store, "a", "x"), [NAN, NAN, 7, 8, 9, 10])
    assert store.row(("b", "y")) is None


def test_a_pod_that_moved_stays_one_series() -> None:
    store, oddities = make(), Oddities()
    moved = {("a", "x", "new"): [NAN, NAN, 3, 4], ("a", "x", "old"): [1, 2, NAN, NAN]}
    read(store, 10, moved, oddities)
    same(row(store, "a", "x"), [NAN, NAN, 1, 2, 3, 4])
    assert not oddities.counts


@pytest.mark.parametrize("turned", [False, True])
def test_of_duplicates_the_first_by_all_labels_counts(turned: bool) -> None:
    store, oddities = make(), Oddities()
    twice = {("a", "x", "1"): [1, NAN, 1], ("a", "x", "2"): [2, 2, 2], ("a", "y", "1"): [5, 5, 5]}
    if turned:
        twice = dict(reversed(twice.items()))
    read(store, 10, twice, oddities)
    same(row(store, "a", "x"), [NAN, NAN, NAN, 1, 2, 1])
    same(row(store, "a", "y"), [NAN, NAN, NAN, 5, 5, 5])
    assert oddities.counts == {"duplicate": 1}
    assert oddities.examples["duplicate"] == '{cluster="a",group="x"}'


def test_a_duplicate_in_the_next_shard_does_not_win() -> None:
    store, oddities = make(), Oddities()
    read(store, 10, {("a", "x", "1"): [1, 1]}, oddities)
    merge(store, 10, {("a", "x", "2"): [2, 2]}, oddities)
    same(row(store, "a", "x"), [NAN, NAN, NAN, NAN, 1, 1])
    assert oddities.counts == {"duplicate": 1}
    read(store, 11, {("a", "x", "1"): [3]}, oddities)  # the next read is no duplicate
    same(row(store, "a", "x"), [NAN, NAN, NAN, 1, 1, 3])


def test_a_series_without_an_identifying_label_is_left_out_by_name() -> None:
    store, oddities = make(), Oddities()
    store.advance(3000)
    store.begin()
    values = np.ones((2, 1), dtype=np.float32)
    labels = [{"cluster": "a"}, {"cluster": "a", "group": "x"}]
    store.merge(labels, Grid(3000, STEP, 1), values, oddities)
    assert len(store) == 1
    assert oddities.counts == {"missing_label": 1}
    assert oddities.examples["missing_label"].startswith("group of ")


def test_departed_series_are_not_fresh_and_leave_with_their_last_point() -> None:
    store = make(columns=6, fresh_columns=3)
    read(store, 10, {("a", "x"): [1], ("a", "y"): [1]})
    for end in (11, 12):
        read(store, end, {("a", "y"): [1]})
        assert len(store.fresh_rows()) == 2
    read(store, 13, {("a", "y"): [1]})
    assert [store.keys[i] for i in store.fresh_rows()] == [("a", "y")]
    assert store.row(("a", "x")) is not None  # it may come back, with its past
    read(store, 16, {("a", "y"): [1]})
    assert store.row(("a", "x")) is None
    births = store.births.copy()
    read(store, 17, {("b", "z"): [7]})
    index = store.row(("b", "z"))
    assert index == 0  # the row is used again
    assert store.births[0] == births[0] + 1
    same(row(store, "b", "z"), [NAN] * 5 + [7])


def test_no_more_than_max_series_the_first_by_name_and_known_ones_stay() -> None:
    store, oddities = make(max_series=2), Oddities()
    read(store, 10, {("b", "b"): [1]}, oddities)
    read(store, 11, {("c", "c"): [1], ("a", "a"): [1], ("b", "b"): [1]}, oddities)
    assert [store.keys[i] for i in store.fresh_rows()] == [("b", "b"), ("a", "a")]
    assert oddities.counts == {"too_many_series": 1}
    assert oddities.examples["too_many_series"] == '{cluster="c",group="c"}'
    # Who departed makes room before its window is empty.
    for end in range(12, 16):
        read(store, end, {("b", "b"): [1], ("c", "c"): [1]})
    assert {store.keys[i] for i in store.fresh_rows()} == {("b", "b"), ("c", "c")}


def test_a_series_that_ended_long_ago_does_not_join() -> None:
    store = make(fresh_columns=2)
    assert read(store, 10, {("a", "x"): [1, 1, NAN, NAN], ("a", "y"): [1, 1, 1, NAN]}) == 1
    assert store.row(("a", "x")) is None


def test_a_clock_set_back_loses_only_the_newest_columns() -> None:
    store = make(columns=4)
    read(store, 10, {("a", "x"): [1, 2, 3, 4]})
    store.advance(8 * STEP)
    same(row(store, "a", "x"), [NAN, NAN, 1, 2])
    assert store.newest_seconds() == 8 * STEP


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),  # steps since the last read
            st.lists(st.tuples(st.integers(0, 5), st.sampled_from([NAN, 1.0, 2.0])), max_size=6),
        ),
        max_size=12,
    )
)
def test_it_holds_what_a_plain_dictionary_would(
    reads: list[tuple[int, list[tuple[int, float]]]],
) -> None:
    """Against {(series, moment): value} of every read, for the series that are in the store."""
    store = make(columns=5, max_series=6, fresh_columns=5)
    held: dict[tuple[int, int], float] = {}
    end = 100
    for steps, points in reads:
        end += steps
        store.advance(end * STEP)
        store.begin()
        series = {("c", str(number)): [value] for number, value in dict(points).items()}
        if series:
            merge(store, end, series)
        held.update({(number, end): value for number, value in dict(points).items()})
        for number in range(6):
            expected = [held.get((number, end - 4 + i), NAN) for i in range(5)]
            index = store.row(("c", str(number)))
            if index is None:
                assert not np.isfinite(expected).any()
            else:
                same(row(store, "c", str(number)), expected)
