"""What passes and what does not, to the digit; and the pages that say so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest

from contract.errors import ArtifactCorruptError
from export.html_report import html_page
from export.report import ParityReport, junit_text, read_report, write_report
from export.target import TARGETS, get_target
from export.verdict import (
    HISTOGRAM_EDGES,
    CellError,
    Flip,
    RungResult,
    Stability,
    TensorResult,
    WorstRow,
)

TENSOR = TensorResult(
    "probabilities",
    maximum=1e-5,
    percentile_99_9=1e-6,
    allowed_maximum=1e-4,
    allowed_percentile_99_9=2e-5,
    worst_cell="(batch=2, length=8, padding=none)",
    nan_mismatches=0,
    histogram=tuple(1 for _ in range(len(HISTOGRAM_EDGES) + 1)),
)
RUNG = RungResult(
    "onnxruntime", "eager", "model.onnx", 4, 16, 0.5, [TENSOR], decisions=10_000, flipped=0
)
REDUCED = dataclasses.replace(RUNG, allowed_flip_share=0.001, allowed_flip_margin=0.05)


def make_report(**changes: object) -> ParityReport:
    report = ParityReport(
        model="log_anomaly",
        preset="line",
        run_id="line-1",
        triton_name="log_anomaly_classifier",
        target="cpu",
        precision="fp32",
        required_rungs=("onnxruntime",),
        files={"model.onnx": "0" * 64},
        rungs=[RUNG],
        created_at="2026-01-01T00:00:00+00:00",
        packages={"torch": "2"},
        hardware={"cpu": "one", "cores": 2},
    )
    return dataclasses.replace(report, **changes)


def test_no_flip_is_allowed_in_fp32() -> None:
    assert RUNG.passed
    flipped = dataclasses.replace(RUNG, flipped=1, widest_flip_margin=1e-9)
    assert not flipped.passed
    assert "1 of 10000 decisions flipped, allowed 0" in str(flipped.complaint())


@pytest.mark.parametrize(
    ("flipped", "margin", "passes"),
    [(10, 0.05, True), (11, 0.01, False), (1, 0.051, False), (0, 0.0, True)],
)
def test_reduced_precision_may_flip_few_and_unsure_ones(
    flipped: int, margin: float, passes: bool
) -> None:
    rung = dataclasses.replace(REDUCED, flipped=flipped, widest_flip_margin=margin)
    assert rung.passed is passes
    assert (rung.complaint() is None) is passes


def test_limits_belong_to_the_target() -> None:
    for target in TARGETS.values():
        reduced = target.precision != "fp32"
        assert target.allowed_flip_share == (0.001 if reduced else 0)
        assert target.allowed_flip_margin == (0.05 if reduced else 0)
        assert {"grpc", "http", "concurrent"} <= set(target.required_rungs)
    assert get_target("cpu").required_rungs[:2] == ("onnxruntime", "torchscript")
    assert get_target("cpu").repository == Path("model_repository")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensors": [dataclasses.replace(TENSOR, maximum=2e-4)]}, "differs by 2.0e-04"),
        ({"tensors": [dataclasses.replace(TENSOR, percentile_99_9=3e-5)]}, "99.9%: 3.0e-05"),
        ({"tensors": [dataclasses.replace(TENSOR, nan_mismatches=2)]}, "2 values are NaN"),
        ({"stability": [Stability("p", 2e-6, 0.0, 1e-6, 3)]}, "rows of a batch are mixed: p of r"),
        ({"stability": [Stability("p", float("nan"), 0.0, 1e-6, 3)]}, "rows of a batch are mixed"),
        ({"stability": [Stability("p", 0.0, 2e-6, 1e-6, 3)]}, "not deterministic"),
        ({"faults": ["quantiles cross in 3 rows"]}, "quantiles cross in 3 rows"),
        ({"errors": [CellError("(batch=1)", "Reshape")]}, "1 of 4 cells failed, first (batch=1)"),
    ],
)
def test_each_symptom_fails_and_is_told(change: dict[str, object], said: str) -> None:
    rung = dataclasses.replace(RUNG, **change)
    assert not rung.passed
    assert said in str(rung.complaint())
    caused = dataclasses.replace(rung, causes=["the horizon is reversed"])
    assert str(caused.complaint()).startswith("the horizon is reversed; ")
    report = make_report(rungs=[RUNG, caused])
    assert not report.passed
    assert "the horizon is reversed" in str(report.complaint())


def test_a_fault_of_the_files_fails_a_report_whose_rungs_pass(tmp_path: Path) -> None:
    report = make_report(faults=["labels.txt holds labels in another order"])
    assert not report.passed
    write_report(report, tmp_path)
    stored = read_report(tmp_path)
    assert stored == report
    assert (
        ElementTree.fromstring(junit_text([report])).find("testsuite/testcase/failure") is not None
    )


def test_a_report_survives_writing_and_nothing_else_is_read(tmp_path: Path) -> None:
    rung = dataclasses.replace(
        RUNG,
        flips=[Flip("(batch=1)", 0, 0, 1, 0, 0.25, "ERROR 显存不足")],
        worst=[WorstRow("p", "(batch=1)", 0, float("inf"), "text")],
        stability=[Stability("p", 0.0, 0.0, 1e-6, 0)],
    )
    report = make_report(rungs=[rung], notes=["fp32 kept: Div"])
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    path = tmp_path / "parity_report.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(ArtifactCorruptError, match="report of schema 2"):
        read_report(tmp_path)


def test_the_page_shows_the_verdict_the_flips_and_their_text() -> None:
    flip = Flip("(batch=7)", 3, 0, 1, 0, 0.25, "<b>ERROR</b> 显存不足")
    rung = dataclasses.replace(RUNG, flipped=1, flips=[flip], causes=["weights of another run"])
    page = html_page([make_report(rungs=[rung])])
    assert "1 of 1 models" in " ".join(page.split())
    assert "weights of another run" in page
    # A log line is text, never markup.
    assert "&lt;b&gt;ERROR&lt;/b&gt; 显存不足" in page
    assert "<svg" in page
    assert "0" * 64 in page
    assert "Yes: 1 of 1 models passed" in " ".join(html_page([make_report()]).split())


def test_the_page_asks_nothing_of_the_network() -> None:
    page = html_page([make_report()])
    assert "<script" not in page
    for attribute in ("src=", "@import", "<link"):
        assert attribute not in page


def test_junit_counts_what_failed() -> None:
    bad = make_report(rungs=[RUNG, dataclasses.replace(RUNG, rung="grpc", flipped=3)])
    root = ElementTree.fromstring(junit_text([make_report(), bad]))
    suites = root.findall("testsuite")
    assert [suite.get("failures") for suite in suites] == ["0", "1"]
    assert [suite.get("tests") for suite in suites] == ["2", "3"]
