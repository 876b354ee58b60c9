"""The vocabulary's files, the lines composed of it, and the rule they must defeat."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataFileError
from training.log_anomaly.baselines import fit_tfidf, keyword_scores
from training.log_anomaly.compose import Composer, fill, random_header
from training.log_anomaly.data import split_messages
from training.log_anomaly.vocabulary import (
    GRADES,
    SLOTS,
    Message,
    load_components,
    load_messages,
)

MESSAGES = load_messages()
LINES = [Composer(MESSAGES).draw(np.random.default_rng([0, i])) for i in range(3000)]
CHINESE = re.compile(r"[㐀-鿿]")


def test_every_message_is_said_in_both_languages_and_graded() -> None:
    assert len(MESSAGES) > 2500
    grades = Counter(message.grade for message in MESSAGES)
    assert min(grades[grade] for grade in GRADES) > 400
    assert not [m for m in MESSAGES if CHINESE.search(m.english) or not CHINESE.search(m.chinese)]


def test_no_message_has_two_grades() -> None:
    grades: dict[str, set[str]] = {}
    for message in MESSAGES:
        grades.setdefault(message.english.lower(), set()).add(message.grade)
    assert not [text for text, found in grades.items() if len(found) > 1]


def test_components_have_both_names() -> None:
    components = load_components()
    assert {component.kind for component in components} == {"hardware", "software"}
    assert not [c for c in components if CHINESE.search(c.english)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("fault\tdisk failed", "three columns"),
        ("broken\tdisk failed\t磁盘故障", "a grade of"),
        ("fault\tdisk {what} failed\t磁盘故障", "slots of"),
        ("fault\t\t磁盘故障", "three columns"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, reason: str) -> None:
    (tmp_path / "own.tsv").write_text(f"routine\tdisk ok\t磁盘正常\n{row}\n", encoding="utf-8")
    with pytest.raises(DataFileError, match=rf"own\.tsv:2.*\n?.*{reason}"):
        load_messages(tmp_path)


def test_a_message_is_held_out_whole() -> None:
    kept, held_out = split_messages(MESSAGES)
    assert not {m.english for m in kept} & {m.english for m in held_out}
    assert 0.07 < len(held_out) / len(MESSAGES) < 0.13
    assert {m.grade for m in held_out} == set(GRADES)


def test_same_seed_same_lines() -> None:
    again = [Composer(MESSAGES).draw(np.random.default_rng([0, i])) for i in range(50)]
    assert again == LINES[:50]


def test_shares_of_grades_and_languages() -> None:
    grades = Counter(line.message.grade for line in LINES)
    assert grades["fault"] / len(LINES) == pytest.approx(0.40, abs=0.04)
    assert sum(line.language == "zh" for line in LINES) / len(LINES) == pytest.approx(
        0.35, abs=0.04
    )


def test_every_slot_is_filled() -> None:
    generator = np.random.default_rng(0)
    assert not [slot for slot in SLOTS if re.search(r"[{}]", fill(f"x {{{slot}}} y", generator))]
    assert not [m for m in MESSAGES if re.search(r"\{\w+\}", fill(m.english, generator))]


def test_a_composer_draws_what_it_is_asked_for() -> None:
    composer = Composer([Message("fault", "disk lost", "磁盘丢失", "own")])
    line = composer.draw(np.random.default_rng(0), header_share=0, language="zh")
    assert line.text == line.body == "磁盘丢失"
    assert composer.draw(np.random.default_rng(0), header_share=1).text != "disk lost"


def test_headers_differ_and_their_level_does_not_decide() -> None:
    headers = [random_header(np.random.default_rng(i), "routine") for i in range(400)]
    assert len({re.sub(r"\w+", "w", header) for header in headers}) > 15
    assert any("FATAL" in header for header in headers)


def test_wording_alone_does_not_decide() -> None:
    """The keyword rule finds words of failure in normal lines, and misses faults."""
    alarm = keyword_scores([line.text for line in LINES]) > 0
    fault = np.array([line.message.grade == "fault" for line in LINES])
    assert alarm[~fault].mean() > 0.15
    assert alarm[fault].mean() < 0.8


@pytest.mark.parametrize(
    ("text", "score"), [("disk ERROR", 1), ("任务失败", 1), ("all is well", 0), ("启动成功", 0)]
)
def test_keyword_rule(text: str, score: float) -> None:
    assert keyword_scores([text]).tolist() == [score]


def test_tfidf_ranks_what_it_has_seen() -> None:
    masked = ["disk <num> lost", "link is up"] * 4
    score = fit_tfidf(masked, np.array([True, False] * 4))
    high, low = score(["disk <num> lost", "link is up"])
    assert high > 0.5 > low
