"""The benchmark's figures: what is counted, over what, and that folds name real systems."""

from __future__ import annotations

import numpy as np
import pytest

from training.log_anomaly.benchmark import FOLDS
from training.log_anomaly.held_out import Ledger, Method, figures_of, system_rows, table
from training.log_anomaly.scores import bootstrap_interval
from training.log_anomaly.systems import FAULT, NEAR_NORMAL_SYSTEMS, ROUTINE, SYSTEM_FILES, LogRow

LENGTH = Method("length", lambda texts: np.array([len(text) for text in texts]) / 10, 0.5)


def test_every_system_is_left_out_once() -> None:
    left_out = [system for fold in FOLDS for system in fold]
    assert sorted(left_out) == sorted(file.system for file in SYSTEM_FILES)
    assert set(NEAR_NORMAL_SYSTEMS) < set(left_out)


def test_false_alarms_are_of_distinct_rows_and_of_lines() -> None:
    found = figures_of(
        np.array([0.9, 0.1, 0.2]), np.zeros(3, bool), 0.5, np.array([98.0, 1.0, 1.0])
    )
    assert found == {
        "false alarms": pytest.approx(1 / 3),
        "false alarms by line": pytest.approx(0.98),
    }


def test_a_system_of_faults_has_recall_alone() -> None:
    found = figures_of(np.array([0.9, 0.1]), np.ones(2, bool), 0.5, np.ones(2))
    assert found == {"recall": 0.5}


def test_a_row_per_system_with_mean_and_spread() -> None:
    ledger = Ledger()
    rows = [LogRow("short", ROUTINE, "own"), LogRow("rather a long one", FAULT, "own")]
    ledger.judge("own", rows, [LENGTH])
    shifted = Method("length", lambda texts: LENGTH.score(texts) - 1, 0.5)
    ledger.judge("own", rows, [shifted])
    ((name, count, ap, f1, false_alarms, recall),) = system_rows(ledger, ["length"])
    assert (name, count, ap) == ("own", "2 (1)", "1.00")
    assert f1 == "0.83 ± 0.17"
    assert false_alarms == "50.0% ± 50.0%"
    assert recall == "100.0%"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_interval_holds_the_figure() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(200) < 0.3
    low, high = bootstrap_interval(truth + generator.normal(size=200), truth)
    assert 0.3 < low < high < 1
