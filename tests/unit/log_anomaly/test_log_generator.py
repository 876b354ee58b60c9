"""Composed lines: three grades, two languages, nothing left to fill in."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from training.log_anomaly.generate import GRADES, generate_lines
from training.log_anomaly.keyword_rule import keyword_scores

LINES = generate_lines(np.random.default_rng(0), 3000)


def test_same_seed_same_lines() -> None:
    assert generate_lines(np.random.default_rng(0), 50) == LINES[:50]


def test_grades_and_languages() -> None:
    grades = Counter(line.grade for line in LINES)
    assert min(grades[grade] for grade in GRADES) > 500
    chinese = sum(bool(re.search(r"[㐀-鿿]", line.text)) for line in LINES)
    assert 0.15 < chinese / len(LINES) < 0.4


def test_no_state_has_two_grades() -> None:
    grades: dict[str, set[str]] = {}
    for line in LINES:
        grades.setdefault(line.state, set()).add(line.grade)
    assert not [state for state, found in grades.items() if len(found) > 1]


def test_every_slot_is_filled() -> None:
    assert not [line.text for line in LINES if re.search(r"[{}]", line.text)]


def test_wording_alone_does_not_decide() -> None:
    """The keyword rule finds words of failure in normal lines, and misses faults."""
    alarm = keyword_scores([line.text for line in LINES]) > 0
    fault = np.array([line.grade == "fault" for line in LINES])
    assert alarm[~fault].mean() > 0.15
    assert alarm[fault].mean() < 0.8


@pytest.mark.parametrize(
    ("text", "score"), [("disk ERROR", 1), ("任务失败", 1), ("all is well", 0), ("启动成功", 0)]
)
def test_keyword_rule(text: str, score: float) -> None:
    assert keyword_scores([text]).tolist() == [score]
