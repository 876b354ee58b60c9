"""Rendering of the demo's table, and the figures it is made of."""

from __future__ import annotations

from typing import Any

import pytest

from contract.errors import InputError
from contract.manifest import Quality
from loadtest.closing_table import HEADER, ClosingTable, as_markdown, as_text, parity_of, quality_of
from loadtest.command import _address
from loadtest.demo_answers import DemoAnswer
from loadtest.measure import Measurement, Side

TABLE = ClosingTable(
    rows=[
        ("metric v1", "0.5 (naive 1.0)", "passed: 1e-06, 0 of 9", "1 / 2 ms", "9", "2×", "4×"),
        ("日志 v1", "a | b", "no report", "1 / 2 ms", "9", "2×", "4×"),
    ],
    answers=[DemoAnswer("日志", "磁盘空间满", "anomaly\n  line 3: x")],
    notes=["a note"],
)


class _Model:
    """The two things of a served model that a cell reads."""

    def __init__(self, quality: tuple[Quality, ...], report: dict[str, Any] | None) -> None:
        self.manifest = type("Manifest", (), {"quality": quality})
        self.parity_report = lambda: report


def quality(value: float, baseline: float, *, higher: bool) -> Quality:
    return Quality(
        metric="F1",
        value=value,
        baseline="rule",
        baseline_value=baseline,
        higher_is_better=higher,
        rows=5,
        split="late",
    )


@pytest.mark.parametrize(
    ("value", "baseline", "higher", "worse"),
    [(0.9, 0.5, True, False), (0.5, 0.9, True, True), (0.5, 0.9, False, False), (1, 1, True, True)],
)
def test_a_model_that_is_not_better_says_so(
    value: float, baseline: float, higher: bool, worse: bool
) -> None:
    cell = quality_of(_Model((quality(value, baseline, higher=higher),), None))  # type: ignore[arg-type]
    assert cell.startswith(f"F1 {value:.3f} (rule {baseline:.3f}")
    assert ("NOT better" in cell) == worse
    assert quality_of(_Model((), None)) == "not measured"  # type: ignore[arg-type]


def test_parity_is_the_published_verdict() -> None:
    report = {
        "passed": True,
        "worst": {"difference": 3.14e-6, "at": "x"},
        "flipped": 0,
        "decisions": 2304,
    }
    assert parity_of(_Model((), report)) == "passed: 3.1e-06, 0 of 2,304"  # type: ignore[arg-type]
    failed = report | {"passed": False, "flipped": 3}
    assert parity_of(_Model((), failed)) == "FAILED: 3.1e-06, 3 of 2,304"  # type: ignore[arg-type]
    assert parity_of(_Model((), None)) == "no report"  # type: ignore[arg-type]


def test_columns_stand_below_each_other() -> None:
    lines = as_text(TABLE).splitlines()
    # Chinese characters take two columns, so the text has two characters less before it.
    assert lines[0].index(HEADER[1]) == lines[2].index("0.5") == lines[3].index("a | b") + 2
    assert "  Q  磁盘空间满" in lines
    assert lines[lines.index("  A  anomaly") + 1] == "       line 3: x"


def test_markdown_holds_the_same() -> None:
    text = as_markdown(TABLE)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert "a \\| b" in table[3]
    for part in ("**日志**", "磁盘空间满", "anomaly\n  line 3: x", "- a note"):
        assert part in text


def test_ratios_above_one_favour_triton() -> None:
    side = {"p99_milliseconds": 9.0, "requests": 10}
    figures = Measurement(
        model="m",
        triton=Side(p50_milliseconds=2.0, requests_per_second=400.0, **side),
        eager=Side(p50_milliseconds=6.0, requests_per_second=100.0, **side),
        rounds=5,
        concurrency=8,
        threads=(1, 2),
    )
    assert (figures.latency_ratio, figures.throughput_ratio) == (3.0, 4.0)


def test_urls() -> None:
    assert _address("grpc://a:1/", "grpc") == _address("a:1", "grpc") == "a:1"
    for wrong in ("http://a:1", "a", "grpc://a:1/path"):
        with pytest.raises(InputError):
            _address(wrong, "grpc")
