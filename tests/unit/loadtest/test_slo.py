"""slo.toml: read with every fault told at once; verdicts that name what was missed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ConfigError
from loadtest.load.figures import RunFigures
from loadtest.load.recorder import ANSWERED, ERROR, NOT_SENT, WRONG
from loadtest.load.shapes import Stage
from loadtest.load.slo import Objectives, Slo, fleet_verdicts, read_slo, verdicts, wrong_answers
from loadtest.load.table import load_markdown, load_table, ramp_row
from loadtest.load.triton_statistics import counts_of
from tests.fixtures.load_figures import MODEL, figures
from training.registry import all_specs

OK = np.array([ANSWERED])
FAST = np.full(200, 0.010)
ALL = Objectives(10.0, 20, 30, 40, 0.0, 1.5, 0.5, 2.0)
SLO = Slo(
    Objectives(1.0), {MODEL: ALL}, Objectives(1.0), {MODEL: Objectives(1.0, p99_milliseconds=20)}
)


def test_the_shipped_objectives_are_read_and_name_models_that_exist() -> None:
    slo = read_slo()
    served = {
        name
        for spec in all_specs()
        for preset in spec.presets
        for name in [(spec.front(preset) or spec.graph(preset)).triton_name]
    }
    assert {*slo.models, *slo.gateway, *slo.fleet} <= served
    # A fourth model has objectives without a line of its own.
    assert slo.of("toy_level") == slo.default
    assert slo.default.p99_milliseconds is not None
    # A section says what differs.
    assert all(own.error_rate is not None for own in slo.models.values())


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(
        "[default]\nrate_per_second = 0\np50_milliseconds = 5\np99_milliseconds = 1\nfoo = 1\n"
        "[models.a]\nerror_rate = 2\np95_milliseconds = '1'\n[extra]\n[fleet]\nb = 1.5\n"
    )
    with pytest.raises(ConfigError) as told:
        read_slo(path)
    text = str(told.value)
    for fault in (
        "default.foo: unknown",
        "default.rate_per_second: expected above 0",
        "default: expected p50 ≤ p95 ≤ p99",
        "models.a.error_rate: expected a number between 0 and 1, got 2",
        "models.a.p95_milliseconds",
        "extra: unknown section",
        "fleet.b",
    ):
        assert fault in text, fault
    assert str(path) in text


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_slo(tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_text("[default\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_slo(tmp_path / "bad.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(ConfigError, match="default: expected a table"):
        read_slo(tmp_path / "empty.toml")


def test_a_good_run_keeps_everything() -> None:
    found = verdicts(SLO, figures(FAST, OK))
    assert [verdict.objective for verdict in found] == [
        *(
            "p50",
            "p95",
            "p99",
            "error rate",
            "realised batch",
            "queue share",
            "first request",
            "p99",
        )
    ]
    assert all(verdict.kept and verdict.got for verdict in found), [str(v) for v in found]


@pytest.mark.parametrize(
    ("run", "missed"),
    [
        (figures(np.full(200, 0.025), OK), {"p50", "p99"}),
        (figures(np.concatenate([np.full(95, 0.01), np.full(5, 0.05)]), OK), {"p99"}),
        (figures(FAST, np.array([ANSWERED] * 99 + [ERROR])), {"error rate"}),
        (figures(FAST, np.array([ANSWERED] * 99 + [NOT_SENT])), {"error rate"}),
        (figures(FAST, OK, first=25.0), {"first request"}),
        (figures(FAST, np.array([ERROR])), {"p50", "p95", "p99", "error rate", "first request"}),
    ],
)
def test_what_is_missed_is_named(run: RunFigures, missed: set[str]) -> None:
    found = [verdict for verdict in verdicts(SLO, run) if not verdict.kept]
    assert {verdict.objective for verdict in found} == missed
    assert all("expected" in str(verdict) and "got" in str(verdict) for verdict in found)


def test_the_servers_side_is_judged_too() -> None:
    strict = replace(ALL, realised_batch=2.5, queue_share=0.1)
    found = verdicts(Slo(Objectives(1.0), {MODEL: strict}), figures(FAST, OK))
    missed = {v.objective: str(v) for v in found if not v.kept}
    assert "got 2.00 rows" in missed["realised batch"]
    assert "got 17%" in missed["queue share"]


def test_only_judged_stages_are_judged() -> None:
    """Slow while nothing is promised, fast when it is; and the other way round."""
    slow_first = np.concatenate([np.full(100, 0.9), np.full(100, 0.01)])
    assert all(verdict.kept for verdict in verdicts(SLO, figures(slow_first, OK)))
    assert not all(verdict.kept for verdict in verdicts(SLO, figures(slow_first[::-1], OK)))


def test_a_first_request_that_was_none_is_not_measured() -> None:
    run = figures(FAST, OK, first="the server had answered 7 requests before")
    (verdict,) = [v for v in verdicts(SLO, run) if v.objective == "first request"]
    assert verdict.got is None
    assert verdict.kept
    assert "not measured: the server had answered 7" in str(verdict)
    assert "not measured" in load_table(run, [verdict])


def test_a_wrong_answer_is_told_even_where_nothing_is_promised() -> None:
    outcomes = np.full(200, ANSWERED)
    outcomes[3] = WRONG
    run = figures(FAST, outcomes)
    assert all(verdict.kept for verdict in verdicts(SLO, run))
    found = wrong_answers(run)
    assert len(found) == 2
    assert "1 wrong of 200" in str(found[0])
    assert run.wrong == 2


def test_the_fleets_minute() -> None:
    stages = (Stage("arriving", 55, 1.0), Stage("rest", 5, 0.0, judged=False))
    kept = figures(np.full(600, 0.01), OK, stages=stages, shape="fleet", channels=("gRPC",))
    late = np.full(600, 0.01)
    late[599] = 2.0
    missed = figures(late, OK, stages=stages, shape="fleet", channels=("gRPC",))
    failed = figures(
        np.full(600, 0.01),
        np.array([ANSWERED] * 599 + [ERROR]),
        stages=stages,
        shape="fleet",
        channels=("gRPC",),
    )
    assert [v.kept for run in (kept, missed, failed) for v in fleet_verdicts(run)] == [
        *(True, False, False)
    ]


def test_tables_hold_the_figures_and_the_misses() -> None:
    run = figures(np.full(200, 0.025), OK)
    found = verdicts(SLO, run)
    for text in (load_table(run, found), load_markdown(run, found)):
        for part in ("25.0", "10.00", "2.00", "log_anomaly", "gateway", "missed", "≤ 20 ms"):
            assert part in text, part
        assert "it broke" in text or "| model |" in text
    assert "figures of b, 10 s" in load_table(run)


def test_a_ramp_tells_where_it_breaks() -> None:
    stages = tuple(Stage(f"{i}", 10, 1.0, judged=False) for i in range(4))
    seconds = np.repeat([0.01, 0.1, 0.3, 2.0], 100)
    run = figures(seconds, OK, stages=stages, shape="ramp", channels=("gRPC",))
    row = ramp_row(run, SLO)
    assert row[:2] == (MODEL, "gRPC")
    assert row[2:5] == ("10.0/s", "10.0/s", "10.0/s")
    assert "p99 2,000 ms, above 500 ms" in row[5]
    whole = figures(np.full(400, 0.01), OK, stages=stages, shape="ramp", channels=("gRPC",))
    assert ramp_row(whole, SLO)[4:] == ("–", "it did not: the ramp ended first")


def test_statistics_of_several_versions_are_one_models() -> None:
    def row(version: str, count: int) -> dict[str, object]:
        return {
            "name": "m",
            "version": version,
            "inference_count": 4 * count,
            "execution_count": count,
            "inference_stats": {
                "success": {"count": count, "ns": 9},
                "queue": {"count": count, "ns": 1_000_000_000},
                "compute_infer": {"count": count, "ns": 3_000_000_000},
            },
            "batch_stats": [{"batch_size": 4, "compute_infer": {"count": count, "ns": 1}}],
        }

    counts = counts_of([row("1", 2), row("2", 3)])["m"]
    assert (counts.requests, counts.rows, counts.executions) == (5, 20, 5)
    assert counts.batches == {4: 5}
    assert counts.realised_batch == 4
    assert counts.queue_share == pytest.approx(0.25)
    assert counts.since(counts).realised_batch is None
    assert counts.since(counts).batches == {}


def test_latency_of_nothing_is_no_number() -> None:
    run = figures(FAST, np.array([ERROR]))
    assert all(math.isnan(value) for value in run.flows[0].milliseconds)
    assert "–" in load_table(run)
