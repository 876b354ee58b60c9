"""The load test's report in a browser: drawn without a network, in light and in dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from loadtest.load.page import load_page
from loadtest.load.recorder import ANSWERED
from loadtest.load.shapes import Stage
from loadtest.load.slo import Objectives, Slo, verdicts
from tests.fixtures.load_figures import MODEL, figures

STAGES = tuple(Stage(f"{i}", 5, 1.0) for i in range(3))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_its_plots_and_asks_nobody(browser: Browser, tmp_path: Path, scheme: str) -> None:
    run = figures(
        np.repeat([0.01, 0.03, 0.2], 50), np.array([ANSWERED]), stages=STAGES, shape="soak"
    )
    slo = Slo(Objectives(1.0, p99_milliseconds=50, queue_share=0.9))
    path = tmp_path / "report.html"
    path.write_text(load_page([run], verdicts(slo, run), slo), encoding="utf-8")
    context = browser.new_context(offline=True, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None,
    )
    page.goto(path.as_uri(), timeout=120_000)
    page.locator("#chart-batches .bars path").first.wait_for(state="attached", timeout=60_000)
    assert page.locator(".chart").count() == 4
    assert page.locator("#chart-time .scatterlayer .trace").count() == 1
    assert page.locator("#chart-split .bars .point").count() > 0
    assert MODEL in page.locator("table").first.inner_text()
    assert "1 of " in page.locator(".verdict").inner_text()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not complaints
    context.close()
