"""Every line gets the answer it would get alone; a new form is asked once; swaps empty it all."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import LogVerdict
from contract.errors import ServerAnswerError
from services.log_pipeline.cache import BoundedLru
from services.log_pipeline.classifier import Answers, LineClassifier
from tests.unit.log_pipeline.conftest import Answerer
from tests.unit.log_pipeline.log_text import raw_lines


def scores(answers: Answers) -> list[float]:
    return [answers.forms[code].score for code in answers.codes]


def alone(answerer: Answerer, line: bytes) -> float:
    if not line.decode("utf-8", "replace").replace("\0", " ").strip():
        return math.nan
    return answerer.verdict(line).score


@given(blocks=st.lists(st.lists(raw_lines(), max_size=40), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_each_line_is_answered_as_it_would_be_alone(
    steps: list[dict[str, Any]], blocks: list[list[bytes]]
) -> None:
    answerer = Answerer(steps)
    # Memories so small that they forget all the time.
    classifier = LineClassifier(answerer, keys=5, forms=3, memory_bytes=600)
    for block in blocks + blocks:
        got = scores(classifier.classify(block))
        expected = [alone(answerer, line) for line in block]
        assert all(
            a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(got, expected, strict=True)
        )


def test_a_form_is_asked_once(classifier: LineClassifier, answerer: Answerer) -> None:
    for start in (0, 1000):
        classifier.classify([b"error %d on core %d" % (n, n % 8) for n in range(start, start + 99)])
    # core 0 stays: 0 is no number to the model.
    assert answerer.asked == [b"error 0 on core 0", b"error 1 on core 1", b"error 8 on core 0"]
    assert classifier.look_ups.asked == 3


def test_counts_and_anomalies(classifier: LineClassifier) -> None:
    answers = classifier.classify([b"a", b"b", b"a", b"", b"c"])
    assert answers.counts().sum() == 5
    flagged = [answers.forms[code].is_anomaly for code in answers.codes]
    assert answers.anomalies().tolist() == [i for i, flag in enumerate(flagged) if flag]


def test_lines_whose_key_does_not_settle_them(
    classifier: LineClassifier, answerer: Answerer
) -> None:
    lines = [b"1,2345", b"1,2346", b"1,2345", b"1,2349"]
    expected = [alone(answerer, line) for line in lines]
    for _ in range(2):
        assert scores(classifier.classify(lines)) == expected
    assert len(answerer.asked) == 3


def test_a_new_version_or_threshold_empties_the_memories(answerer: Answerer) -> None:
    now = [0.0]
    classifier = LineClassifier(answerer, clock=lambda: now[0])
    (before,) = scores(classifier.classify([b"disk failed"]))
    answerer.version = "2"
    now[0] += 10
    (after,) = scores(classifier.classify([b"disk failed"]))
    assert after != before
    answerer.threshold = after + 0.0001
    now[0] += 10
    assert not classifier.classify([b"disk failed"]).anomalies().size
    answerer.threshold = after
    now[0] += 10
    assert classifier.classify([b"disk failed"]).anomalies().size
    assert classifier.look_ups.swaps == 3


def test_a_swap_seen_in_an_answer_leaves_nothing_of_the_old_version(answerer: Answerer) -> None:
    classifier = LineClassifier(answerer, clock=lambda: 0.0)
    classifier.classify([b"disk failed", b"fan failed"])
    answerer.version = "2"
    got = scores(classifier.classify([b"disk failed", b"a new line"]))
    assert got == [alone(answerer, b"disk failed"), alone(answerer, b"a new line")]


def test_versions_that_never_settle_are_an_error(answerer: Answerer) -> None:
    class Restless(Answerer):
        def classify(self, texts: Any, *, on_error: str = "raise") -> list[LogVerdict]:
            self.version += "x"
            return super().classify(texts)

    with pytest.raises(ServerAnswerError, match="does not settle"):
        LineClassifier(Restless(answerer.steps)).classify([b"disk failed"])


def test_a_front_without_masking_is_refused_by_name(answerer: Answerer) -> None:
    class Old(Answerer):
        def describe(self) -> dict[str, Any]:
            return {"model_version": "1"}

    with pytest.raises(ServerAnswerError, match="publish again"):
        LineClassifier(Old(answerer.steps)).classify([b"disk failed"])


def test_the_memories_are_bounded() -> None:
    lru: BoundedLru[bytes, int] = BoundedLru(3, 10)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        lru.put(key, 1)
    assert lru.get(b"b") is None
    assert lru.get(b"a") == 1
    lru.put(b"123456789", 1)
    assert (len(lru), lru.size_bytes) == (2, 10)
    lru.put(b"x" * 11, 1)
    assert (len(lru), lru.size_bytes) == (0, 0)
