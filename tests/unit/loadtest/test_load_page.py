"""The report: self-contained, and nothing in it can end its scripts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np

from loadtest.load.page import charts, load_page
from loadtest.load.recorder import ANSWERED
from loadtest.load.slo import Objectives, Slo, verdicts
from tests.fixtures.load_figures import MODEL, figures

SLO = Slo(Objectives(1.0, p99_milliseconds=50))
RUN = figures(np.full(200, 0.02), np.array([ANSWERED]))


def test_it_holds_table_verdicts_and_figures_and_no_address() -> None:
    page = load_page([RUN], verdicts(SLO, RUN), SLO, "| a | b |")
    own = re.sub(r"<script>/\*.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert len(own) < 100_000 < len(page)
    assert not re.search(r"(src|href)=", own)
    for part in (MODEL, "20.0", "≤ 50 ms", "All objectives kept", "| a | b |", "gateway"):
        assert part in own, part


def test_what_a_server_says_cannot_end_a_script() -> None:
    hostile = "</script><script>alert(1)</script>"
    run = replace(RUN, told={MODEL: hostile}, first_messages={"a": [hostile]})
    run.counts[hostile] = run.counts[MODEL]
    page = load_page([run], [], SLO)
    del run.counts[hostile]
    assert "<script>alert" not in page


def test_the_charts_hold_what_was_counted() -> None:
    by_id = {chart["id"]: chart for chart in charts([RUN])}
    rate = by_id["rate"]["series"]
    assert [one["name"] for one in rate] == [f"{MODEL} p50", f"{MODEL} p99"]
    assert rate[0]["y"] == [20.0, 20.0]
    assert by_id["batches"]["series"][0]["x"] == [2]
    assert by_id["batches"]["series"][0]["y"] == [100.0]
    waiting, _, computing, _ = by_id["split"]["series"]
    assert (waiting["y"], computing["y"]) == ([2.0], [10.0])
    json.dumps(list(by_id.values()), allow_nan=False)
