"""Every tab for everybody: axe's rules in both colours and languages, and 360 pixels of width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.fixtures.stand_in_gateway import Script
from tests.integration.page.conftest import overflow_pixels, panel, wait_for_state

OpenPage = Callable[..., Page]
TABS = ("diagnose", "logs", "forecast", "models")


def fill_with_example(page: Page, tab: str) -> None:
    """The tab with an answer in it."""
    if tab != "models":
        panel(page, tab).get_by_role("button", name="Try an example").click()
    wait_for_state(page, tab, "result")
    if tab == "forecast":
        page.locator(".chart .main-svg").first.wait_for()
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")


def findings(page: Page) -> list[str]:
    """What axe calls serious or critical, with the element."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0]['failureSummary'][:300]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("tab", TABS)
def test_no_serious_finding(open_page: OpenPage, stand_in: str, tab: str) -> None:
    page = open_page(stand_in, tab, reduced_motion="reduce")
    empty = findings(page)
    fill_with_example(page, tab)
    found = {"empty": empty}
    for colours in ("light", "dark"):
        for language in ("en", "zh"):
            found[f"{colours} {language}"] = findings(page)
            page.locator("#language-switch").click()
        page.locator("#theme-switch").click()
    assert not any(found.values()), found


def test_no_serious_finding_in_trouble(open_page: OpenPage, stand_in: str, script: Script) -> None:
    script.ready = False
    script.token = "s3cret"
    page = open_page(stand_in, reduced_motion="reduce")
    page.fill("#diagnose-text", "x")
    page.keyboard.press("Control+Enter")
    wait_for_state(page, "diagnose", "failure")
    page.locator("#banner").wait_for()
    found = {"light": findings(page)}
    page.locator("#theme-switch").click()
    found["dark"] = findings(page)
    assert not any(found.values()), found


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_no_tab_is_wider_than_360_pixels(
    open_page: OpenPage, stand_in: str, script: Script, locale: str
) -> None:
    page = open_page(stand_in, locale=locale, viewport={"width": 360, "height": 740})
    for tab in TABS:
        page.goto(f"{stand_in}/#{tab}")
        panel(page, tab).wait_for()
        assert overflow_pixels(page) == 0, f"{tab}, empty"
        if tab != "models":
            panel(page, tab).locator(".example").click()
        wait_for_state(page, tab, "result")
        page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
        assert overflow_pixels(page) == 0, f"{tab}, answered"
    script.ready = False
    script.refusals.append((422, {}, {"title": "no", "what": "w" * 300, "got": "g" * 300}))
    page.goto(f"{stand_in}/#diagnose")
    page.reload()
    page.fill("#diagnose-text", "x")
    page.keyboard.press("Control+Enter")
    wait_for_state(page, "diagnose", "failure")
    page.locator("#banner").wait_for()
    assert overflow_pixels(page) == 0, "in trouble"
