"""The front's batching: exact cache, no repeats, chunks of like length, order kept."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from training.text.text_batch import (
    MAXIMUM_CHARACTERS,
    Chunk,
    FrontError,
    MaskedTokenizer,
    TextBatcher,
    chunk_groups,
    read_texts,
)


class Recorder:
    """A classifier whose answer is a function of the tokens alone; keeps what it was asked."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def __call__(self, chunks: list[Chunk]) -> list[np.ndarray]:
        self.chunks += chunks
        return [
            np.stack([(ids * mask).sum(1), mask.sum(1)], axis=1).astype(np.float32)
            for ids, mask in chunks
        ]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def batcher_of(folder: Path, recorder: Recorder, **settings: int) -> TextBatcher:
    return TextBatcher(folder / "tokenizer.json", recorder, max_tokens=64, **settings)


def test_each_text_gets_its_own_answer(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder, chunk_rows=3)
    texts = [f"disk {'failed ' * n}{chr(97 + n)}" for n in (9, 1, 5, 0, 7, 3, 2)]
    expected = [batcher_of(masked_folder, Recorder()).probabilities([t])[0] for t in texts]
    np.testing.assert_array_equal(batcher.probabilities(texts), expected)
    lengths = [mask.sum(1).tolist() for _, mask in recorder.chunks]
    assert [len(chunk) for chunk in lengths] == [3, 3, 1]
    flat = [length for chunk in lengths for length in chunk]
    assert flat == sorted(flat)


def test_padding_is_masked(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder)
    batcher.probabilities(["disk", "disk failed failed"])
    ((ids, mask),) = recorder.chunks
    assert ids.dtype == mask.dtype == np.int64
    assert mask[0].tolist() == [1, 1, 1, 0, 0]
    assert (ids[mask == 0] == batcher.tokenizer.padding_id).all()
    assert batcher.padding_waste == pytest.approx(0.2)


def test_repeats_and_cache_cost_nothing(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder)
    batcher.probabilities(["disk 1 failed", "disk 22 failed", "0 errors"])
    assert (batcher.hits, batcher.misses) == (0, 2)
    again = batcher.probabilities(["disk 333 failed"])
    assert (batcher.hits, batcher.misses) == (1, 2)
    assert sum(len(ids) for ids, _ in recorder.chunks) == 2
    np.testing.assert_array_equal(
        again, batcher_of(masked_folder, Recorder()).probabilities(["disk 333 failed"])
    )


def test_cache_forgets_the_longest_unused(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder, cache_size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        batcher.probabilities([text])
    assert (batcher.hits, batcher.misses) == (2, 4)


def test_more_texts_than_the_cache_holds(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder, cache_size=2)
    texts = [f"disk {letter}" for letter in "abcdefgh"]
    assert batcher.probabilities(texts).shape == (8, 2)


def test_control_tokens_in_text_are_text(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder)
    (ids,) = batcher.tokenizer.encode([batcher.tokenizer.mask("disk [SEP] failed")])
    closing = ids[-1]
    assert ids.count(closing) == 1
    # One masked text, one row of tokens: what the cache relies on.
    assert batcher.tokenizer.mask("/a/[SEP]/b") != batcher.tokenizer.mask("/a/c/b")


def test_long_lines_are_cut_and_answered(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder)
    batcher.probabilities(["disk failed " * 100_000])
    ((ids, _),) = recorder.chunks
    assert ids.shape == (1, 64)
    assert len(batcher.tokenizer.mask("x" * 10**6)) == MAXIMUM_CHARACTERS


def test_threads_share_one_cache(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder, cache_size=5)
    texts = [f"disk {letter}" for letter in "abcdefghij"]
    expected = batcher_of(masked_folder, Recorder()).probabilities(texts)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(batcher.probabilities, [texts] * 40):
            np.testing.assert_array_equal(answer, expected)
    assert batcher.hits + batcher.misses == 400


def test_no_texts(masked_folder: Path, recorder: Recorder) -> None:
    assert len(batcher_of(masked_folder, recorder).probabilities([])) == 0
    assert recorder.chunks == []


def test_a_classifier_that_loses_rows_is_an_error(masked_folder: Path) -> None:
    def lossy(chunks: list[Chunk]) -> list[np.ndarray]:
        return [np.zeros((len(ids) - 1, 2), np.float32) for ids, _ in chunks]

    batcher = TextBatcher(masked_folder / "tokenizer.json", lossy, max_tokens=64)
    with pytest.raises(RuntimeError, match="number of rows"):
        batcher.probabilities(["disk", "failed"])


def test_a_tokenizer_without_masking_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="masks nothing"):
        MaskedTokenizer(tiny_encoder / "tokenizer.json", max_tokens=64)
    document = json.loads((tiny_encoder / "tokenizer.json").read_text())
    document["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="masks nothing"):
        MaskedTokenizer(tmp_path / "tokenizer.json", max_tokens=64)


def column(*values: object) -> np.ndarray:
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = values
    return array


def test_bytes_of_any_kind_are_read() -> None:
    texts = read_texts(column("磁盘 😀".encode(), b"bad \xff byte", b"nul\0byte", "str"))
    assert texts == ["磁盘 😀", "bad � byte", "nul byte", "str"]


@pytest.mark.parametrize("value", [b"", b"  \t", b"\0\0"])
def test_empty_text_is_refused(value: bytes) -> None:
    with pytest.raises(FrontError, match="row 1"):
        read_texts(column(b"fine", value))


def test_chunks_fit_their_tokens_and_rows() -> None:
    lengths = [30, 5, 60, 7, 8, 31, 29, 6] * 4
    groups = chunk_groups(lengths, tokens=128, rows=6)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(flat)
    for group in groups:
        assert len(group) <= 6
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= 128


def test_few_rows_are_shared_by_two_instances() -> None:
    assert [len(group) for group in chunk_groups([10] * 8, tokens=128, rows=32)] == [4, 4]
    assert [len(group) for group in chunk_groups([20] * 7, tokens=256, rows=32)] == [4, 3]
    assert chunk_groups([64], tokens=32, rows=4) == [[0]]
    assert chunk_groups([], tokens=32, rows=4) == []


def test_without_a_cache_nothing_is_remembered(masked_folder: Path, recorder: Recorder) -> None:
    batcher = batcher_of(masked_folder, recorder, cache_size=0)
    for _ in range(2):
        batcher.probabilities(["disk 1 failed", "disk 22 failed"])
    assert (batcher.hits, batcher.misses, batcher.rows) == (0, 2, 4)
    assert batcher.cache_entries == 0
    assert min(batcher.seconds.values()) > 0
