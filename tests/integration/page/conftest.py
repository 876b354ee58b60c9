"""Headless Chromium, and pages in it that are watched: nothing may leave their origin, nothing may
violate their content security policy, no script may fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from services.gateway.page import PageSettings
from tests.fixtures.stand_in_gateway import Script, make_stand_in, serving

CHROMIUM = "/usr/bin/chromium"
SMALL_LOG_BYTES = 1 << 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of a module, not of the session: while it is open, asyncio counts as running in this thread.
    if shutil.which(CHROMIUM) is None:
        pytest.skip("chromium is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@dataclass
class Watch:
    """What the pages asked for and complained of."""

    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self, origin: str) -> None:
        foreign = [
            url
            for url in self.urls
            if not url.startswith((origin + "/", "data:", f"blob:{origin}/"))
        ]
        assert not foreign, f"requests that left the origin: {foreign}"
        assert not self.complaints


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """``open_page(url, tab="", **context)``: a page whose scripts have started. When the test ends,
    what it did is checked.
    """
    opened: list[tuple[BrowserContext, Watch, str]] = []

    def open_one(url: str, tab: str = "", **context: Any) -> Page:
        given = {"locale": "en-US", "timezone_id": "Asia/Shanghai", "color_scheme": "light"}
        made = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **given, **context}
        )
        made.set_default_timeout(15_000)
        watch = Watch()
        made.on("request", lambda request: watch.urls.append(request.url))
        made.on("weberror", lambda error: watch.complaints.append(str(error.error)))
        made.on("console", lambda message: _note(message, watch))
        page = made.new_page()
        page.goto(f"{url}/{'#' if tab else ''}{tab}")
        page.wait_for_selector("html[data-started]")
        parts = urlsplit(url)
        opened.append((made, watch, f"{parts.scheme}://{parts.netloc}"))
        return page

    yield open_one
    for context, watch, origin in opened:
        context.close()
        watch.check(origin)


def _note(message: Any, watch: Watch) -> None:
    # Chromium reports every answer of 4xx and 5xx as an error of its own; the page shows those.
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        watch.complaints.append(message.text)


@pytest.fixture
def script() -> Script:
    """What the stand-in of this test answers."""
    return Script()


@pytest.fixture
def stand_in(script: Script) -> Iterator[str]:
    """The stand-in's address; it refuses logs of more than SMALL_LOG_BYTES."""
    settings = PageSettings(largest_log_bytes=SMALL_LOG_BYTES, prometheus=("main",))
    with serving(make_stand_in(script, settings)) as url:
        yield url


def panel(page: Page, tab: str) -> Locator:
    return page.locator(f"#panel-{tab}")


def wait_for_state(page: Page, tab: str, state: str) -> Locator:
    """The tab's answer, once it is in that state."""
    answer = panel(page, tab).locator(f'.answer[data-state="{state}"]')
    answer.wait_for()
    return answer


def pixels(shot: bytes, colour: tuple[int, int, int], distance: int = 2) -> int:
    """How many pixels of a screenshot have that colour, give or take ``distance`` a channel."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    return sum(
        count
        for count, pixel in image.getcolors(image.width * image.height)
        if all(abs(a - b) <= distance for a, b in zip(pixel, colour, strict=True))
    )


def overflow_pixels(page: Page) -> int:
    """How far the document is wider than the window."""
    width: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width
