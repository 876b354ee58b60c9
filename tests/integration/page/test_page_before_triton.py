"""The page of the real gateway before a real tritonserver, in Chromium: all four tabs, and what the
page says when the server is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from playwright.sync_api import Page, expect

from embedded_triton import EmbeddedServer
from tests.fixtures.gateway_process import free_ports, gateway_process, tiny_triton
from tests.integration.page.conftest import panel, pixels, wait_for_state

OpenPage = Callable[..., Page]
LOG = """job 7 started
Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.94 GiB
"""


@pytest.fixture(scope="module")
def triton(
    toy_model: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    with tiny_triton(tmp_path_factory.mktemp("page_triton"), toy_model) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(triton: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``python -m services gateway train_failure_rca``."""
    repository = str(triton.settings.repository)
    words = ("all", "--no-tokens", "--repository", repository, *free_ports())
    folder = tmp_path_factory.mktemp("page_gateway")
    with gateway_process(folder, f"grpc://{triton.grpc_url}", *words) as running:
        yield running.urls["train_failure_rca"]


def rgb(page: Page, selector: str, name: str) -> list[float]:
    found: list[float] = page.eval_on_selector(
        selector, f"e => getComputedStyle(e).{name}.match(/[\\d.]+/g).map(Number)"
    )
    return found


def test_all_tabs_are_there_and_the_models_are_ready(open_page: OpenPage, gateway: str) -> None:
    page = open_page(gateway)
    expect(page.get_by_role("tab")).to_have_text(["Diagnose", "Logs", "Forecast", "Models"])
    expect(page.locator("#readiness")).to_have_text("Ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_evidence_is_highlighted(open_page: OpenPage, gateway: str, scheme: str) -> None:
    page = open_page(gateway, color_scheme=scheme)
    page.fill("#diagnose-text", LOG)
    # A model of two random layers: everything is a cause, somewhere.
    page.fill("#diagnose-threshold", "0.001")
    page.get_by_role("button", name="Diagnose", exact=True).click()
    answer = wait_for_state(page, "diagnose", "result")
    expect(answer.locator(".cause.root")).to_contain_text("look at ")
    expect(answer.locator(".probabilities li")).to_have_count(14)
    answer.locator(".cause.root .jump").first.click()
    expect(answer.locator(".log-row.target.root")).to_be_in_viewport()
    colour = rgb(page, ".log-row.evidence.root", "backgroundColor")
    shot = page.locator(".log-scroll").screenshot()
    assert pixels(shot, (int(colour[0]), int(colour[1]), int(colour[2]))) > 1_000


def test_lines_get_scores(open_page: OpenPage, gateway: str, toy_model: ModuleType) -> None:
    page = open_page(gateway, "logs", locale="zh-CN")
    page.fill("#logs-text", "\n".join(toy_model.LINES))
    page.keyboard.press("Control+Enter")
    answer = wait_for_state(page, "logs", "result")
    expect(answer.locator("tbody tr")).to_have_count(len(toy_model.LINES))
    # The threshold lies between these lines, so both verdicts occur.
    expect(answer.locator(".badge.abnormal").first).to_have_text("异常")
    expect(answer.locator(".badge.normal").first).to_have_text("正常")


def test_the_band_is_plotted(open_page: OpenPage, gateway: str) -> None:
    page = open_page(gateway, "forecast")
    panel(page, "forecast").locator(".example").click()
    answer = wait_for_state(page, "forecast", "result")
    expect(answer.locator(".verdict")).to_contain_text("in 12 h")
    page.locator(".chart .main-svg .fills path").wait_for(state="attached")
    band = rgb(page, ".chart .fills path", "fill")
    share = float(
        page.eval_on_selector(".chart .fills path", "e => getComputedStyle(e).fillOpacity")
    )
    surface = rgb(page, ".chart-card", "backgroundColor")
    mixed = [round(b * share + s * (1 - share)) for b, s in zip(band[:3], surface[:3], strict=True)]
    shot = page.locator(".chart").screenshot()
    # The stand-in's band is a fifth of the newest value high, for 12 of 60 hours.
    assert pixels(shot, (mixed[0], mixed[1], mixed[2])) > 5_000
    for name in ("history", "80% band", "median", "predict_linear", "Threshold"):
        expect(page.locator(".chart .legendtext", has_text=name)).to_have_count(1)


def test_a_series_that_makes_no_sense_is_the_servers_to_explain(
    open_page: OpenPage, gateway: str
) -> None:
    page = open_page(gateway, "forecast")
    page.fill("#forecast-csv", "1,1e300\n2,1e300\n3,1e300\n")
    page.get_by_role("button", name="Forecast", exact=True).click()
    shown = wait_for_state(page, "forecast", "failure")
    expect(shown).to_contain_text("The input makes no sense")
    expect(shown).to_contain_text("series 0")


def test_models_are_told_with_live_figures(open_page: OpenPage, gateway: str) -> None:
    page = open_page(gateway, "models")
    wait_for_state(page, "models", "result")
    cards = page.locator(".model")
    expect(cards).to_have_count(6)
    front = cards.filter(has=page.get_by_role("heading", name="log_anomaly", exact=True))
    expect(front).to_contain_text("version 1")
    expect(front).to_contain_text("ready")
    expect(front.locator(".live")).to_contain_text("Mean latency")


def test_the_server_goes_and_the_page_says_so(
    open_page: OpenPage, gateway: str, triton: EmbeddedServer
) -> None:
    page = open_page(gateway)
    expect(page.locator("#readiness")).to_have_text("Ready")
    triton.stop()
    page.reload()
    banner = page.locator("#banner")
    expect(banner).to_contain_text("The model server does not answer", timeout=30_000)
    expect(banner).to_contain_text("make up")
    page.fill("#diagnose-text", LOG)
    page.keyboard.press("Control+Enter")
    shown = panel(page, "diagnose").locator(
        '.answer[data-state="busy"], .answer[data-state="failure"]'
    )
    expect(shown).to_contain_text("does not answer", timeout=90_000)
