"""What ``clients diagnose`` prints for a person."""

from __future__ import annotations

from clients.command import _story
from clients.results import Cause, Diagnosis, EvidenceLine

CAUSE = Cause(
    "OOM", 0.9, (EvidenceLine(7, "OOMKilled\x1b]0;x\x07"),), {"en": "more memory", "zh": "加内存"}
)
FOUND = Diagnosis([CAUSE], "OOM", False, {"OOM": 0.9}, "1")


def test_a_cause_is_told_with_evidence_and_action() -> None:
    assert "root cause OOM (0.90)" in _story("a.log", FOUND, "en")
    assert "7: OOMKilled" in _story("a.log", FOUND, "en")
    assert "→ 加内存" in _story("a.log", FOUND, "zh")


def test_evidence_is_highlighted_and_cannot_steer_the_terminal() -> None:
    story = _story("a.log", FOUND, "en", colour=True)
    assert "7: \x1b[1;31mOOMKilled" in story
    assert "\x07" not in story
    assert story.count("\x1b") == 2


def test_unknown_and_healthy_are_told_apart() -> None:
    unknown = Diagnosis([], None, True, {}, "1")
    assert "cause unknown" in _story("a.log", unknown, "en")
    assert "未见失败迹象" in _story("a.log", Diagnosis([], None, False, {}, "1"), "zh")
