"""A huge log becomes small, whole or in pieces, and its lines keep their numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import thinning
from clients.thinning import LogThinner, ThinnedLog, thin


def test_thinning_keeps_the_error_and_its_line_number() -> None:
    lines = [f"step {i} is fine and says nothing of interest".encode() for i in range(60_000)]
    lines[30_000] = b"RuntimeError: the one that matters"
    thinned = thin(b"\n".join(lines), largest_bytes=200_000)
    kept = thinned.text.split(b"\n")
    assert len(thinned.text) <= 200_000
    position = kept.index(b"RuntimeError: the one that matters")
    assert thinned.original(position + 1) == 30_001
    assert kept[position - 1] == lines[29_999]
    assert kept[-1] == lines[-1]
    small = thin(b"a\nb")
    assert (small.text, small.original(2)) == (b"a\nb", 2)


def _thinned_by_the_book(log: bytes, largest_bytes: int) -> ThinnedLog:
    """What ``thin`` promises, written as slowly as it is said."""
    if len(log) <= largest_bytes:
        return ThinnedLog(log, [])
    lines = [line[:8192] for line in log.split(b"\n")]
    chosen: set[int] = set()

    def take(order: Iterable[int], left: int) -> int:
        for index in order:
            if index not in chosen:
                if len(lines[index]) + 1 > left:
                    return -1
                chosen.add(index)
                left -= len(lines[index]) + 1
        return left

    forms: set[bytes] = set()
    near: list[int] = []
    for index, line in enumerate(lines):
        form = re.sub(rb"\d+", b"0", line)
        if re.search(rb"Error|killed", line) and form not in forms:
            forms.add(form)
            near += range(max(0, index - 3), min(len(lines), index + 4))
    share = int(largest_bytes * 0.75)
    take(near, share)
    used = sum(len(lines[index]) + 1 for index in chosen)
    left = take(range(len(lines) - 1, max(-1, len(lines) - 20_001), -1), largest_bytes - used)
    take(range(min(len(lines), 2000)), left)
    kept = sorted(chosen)
    return ThinnedLog(b"\n".join(lines[i] for i in kept), [i + 1 for i in kept])


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([b"step %d", b"Error %d", b"killed %d \xff", b"", b"x" * 9000]),
            st.integers(0, 300),
            st.integers(1, 12),
        ),
        max_size=15,
    ),
    cuts=st.lists(st.integers(0, 200_000), max_size=12),
    largest_bytes=st.sampled_from([50, 400, 3_000, 20_000]),
    block=st.sampled_from([60, 1_000, 1 << 20]),
)
@settings(deadline=None, max_examples=80)
def test_a_log_in_pieces_is_thinned_as_the_whole(
    rows: list[tuple[bytes, int, int]], cuts: list[int], largest_bytes: int, block: int
) -> None:
    log = b"\n".join(
        (form % number if b"%" in form else form)
        for form, number, times in rows
        for _ in range(times)
    )
    expected = _thinned_by_the_book(log, largest_bytes)
    places = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thinning, "_BLOCK_BYTES", block)
        thinner = LogThinner(largest_bytes)
        for start, stop in itertools.pairwise(places):
            thinner.feed(log[start:stop])
        assert thinner.finish() == expected
        assert thin(log, largest_bytes) == expected
