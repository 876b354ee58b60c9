"""Every state of the page that is not an answer, between Chromium and a stand-in of the gateway."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.fixtures.stand_in_gateway import Script
from tests.integration.page.conftest import SMALL_LOG_BYTES, panel, wait_for_state

OpenPage = Callable[..., Page]
LOG = "step 1\nstep 2\nRuntimeError: CUDA out of memory\n"


def ask(page: Page, text: str = LOG) -> None:
    page.fill("#diagnose-text", text)
    panel(page, "diagnose").get_by_role("button", name="Diagnose", exact=True).click()


def test_no_triton_is_told_until_it_is_back(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    script.ready = False
    page = open_page(stand_in)
    banner = page.locator("#banner")
    expect(banner).to_contain_text("The model server does not answer")
    expect(banner).to_contain_text("make up")
    expect(page.locator("#readiness")).to_have_text("No model server")
    script.ready = True
    banner.get_by_role("button", name="Check again").click()
    expect(banner).to_be_hidden()
    expect(page.locator("#readiness")).to_have_text("Ready")


def test_a_problem_is_shown_with_its_parts_and_can_be_retried(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    told = {
        "title": "The model server failed",
        "status": 500,
        "what": "train_failure_rca: no answer from version 3",
        "expected": "one diagnosis a log",
        "got": "nothing",
        "next": "load it again: python -m export publish",
        "request_id": "4f1c",
    }
    script.refusals.append((500, {}, told))
    page = open_page(stand_in)
    ask(page)
    shown = wait_for_state(page, "diagnose", "failure")
    for text in (
        "no answer from version 3",
        "one diagnosis a log",
        "nothing",
        "load it again",
        "4f1c",
    ):
        expect(shown).to_contain_text(text)
    shown.get_by_role("button", name="Try again").click()
    expect(wait_for_state(page, "diagnose", "result")).to_contain_text("CUDA_OutOfMemory")


def test_a_busy_gateway_is_asked_again_when_it_says(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    script.refusals.append((429, {"Retry-After": "600"}, {"title": "Too fast", "status": 429}))
    page = open_page(stand_in)
    ask(page)
    shown = wait_for_state(page, "diagnose", "busy")
    expect(shown).to_contain_text("Too many requests just now")
    expect(shown).to_contain_text("Trying again in")
    script.refusals.append((429, {"Retry-After": "1"}, {"title": "Too fast", "status": 429}))
    shown.get_by_role("button", name="Try now").click()
    # This time nobody presses a button.
    wait_for_state(page, "diagnose", "result")
    assert len(script.bodies) == 3


def test_a_request_on_its_way_can_be_cancelled(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    script.hold = threading.Event()
    page = open_page(stand_in)
    ask(page)
    shown = wait_for_state(page, "diagnose", "loading")
    expect(shown.get_by_role("progressbar")).to_be_visible()
    expect(shown).to_contain_text("The models are at work")
    shown.get_by_role("button", name="Cancel").click()
    wait_for_state(page, "diagnose", "empty")
    script.hold.set()
    assert page.input_value("#diagnose-text") == LOG


def test_nobody_answers(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in)
    page.route("**/v1/**", lambda route: route.abort())
    ask(page)
    expect(wait_for_state(page, "diagnose", "failure")).to_contain_text(
        "The gateway did not answer"
    )


def test_an_answer_of_somebody_else(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in)
    page.route(
        "**/v1/**", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1><script>1")
    )
    ask(page)
    shown = wait_for_state(page, "diagnose", "failure")
    expect(shown).to_contain_text("not what was agreed (status 502)")


def test_a_token_is_asked_for_and_kept_in_this_tab_only(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    script.token = "s3cret"
    page = open_page(stand_in)
    ask(page)
    expect(page.locator("#token-field")).to_be_focused()
    page.fill("#token-field", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_contain_text("refused")
    page.fill("#token-field", "s3cret")
    page.keyboard.press("Enter")
    wait_for_state(page, "diagnose", "result")
    expect(page.locator("#token")).to_be_hidden()
    assert page.evaluate("Object.values({...sessionStorage})") == ["s3cret"]
    assert page.evaluate("Object.keys({...localStorage})") == []
    assert "s3cret" not in str(page.context.cookies())


def test_what_is_too_large_is_refused_before_it_is_sent(
    open_page: OpenPage, stand_in: str, script: Script, tmp_path: Path
) -> None:
    page = open_page(stand_in)
    large = tmp_path / "large.log"
    large.write_bytes(b"x" * (SMALL_LOG_BYTES + 1))
    packed = tmp_path / "packed.log.gz"
    packed.write_bytes(gzip.compress(b"\0" * (200 << 20)))
    for path in (large, packed):
        page.set_input_files("#diagnose-text-file", path)
        complaint = panel(page, "diagnose").locator(".complaint")
        expect(complaint).to_contain_text("too large")
        expect(complaint).to_contain_text("at most 1 MB")
        panel(page, "diagnose").get_by_role("button", name="Clear").click()
    ask(page, "")
    expect(wait_for_state(page, "diagnose", "failure")).to_contain_text("no log to diagnose")
    assert script.bodies == []


def test_files_of_other_encodings_and_gzip(
    open_page: OpenPage, stand_in: str, script: Script, tmp_path: Path
) -> None:
    page = open_page(stand_in)
    text = "节点掉卡\nCUDA out of memory\n"
    for name, content in (
        ("utf-8.log", text.encode()),
        ("gb.log", text.encode("gb18030")),
        ("utf-16.log", text.encode("utf-16")),
        ("utf-8.log.gz", gzip.compress(text.encode())),
    ):
        (tmp_path / name).write_bytes(content)
        page.fill("#diagnose-text", "")
        page.set_input_files("#diagnose-text-file", tmp_path / name)
        expect(page.locator("#diagnose-text")).to_have_value(text)


def test_a_file_can_be_dropped(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in)
    transfer = page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["dropped line"], "job.log"));
            return transfer;
        }"""
    )
    page.dispatch_event("#panel-diagnose .source", "drop", {"dataTransfer": transfer})
    expect(page.locator("#diagnose-text")).to_have_value("dropped line")


def test_no_cause_and_an_unknown_one(open_page: OpenPage, stand_in: str, script: Script) -> None:
    page = open_page(stand_in)
    ask(page, "all is well\n")
    expect(wait_for_state(page, "diagnose", "result")).to_contain_text("No failure found")
    script.unknown = True
    ask(page, "nobody knows\n")
    expect(panel(page, "diagnose").locator(".verdict")).to_contain_text("no known cause fits")


def test_input_that_makes_no_sense_is_told_by_line(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    page = open_page(stand_in, "forecast")
    submit = panel(page, "forecast").get_by_role("button", name="Forecast", exact=True)
    for text, told in (
        ("", "no history"),
        ("timestamp,value\n1,2\n2,3\nsoon,4\n", "line 4"),
        ("1,2\n2,3\n", "Too little history"),
        ("5,1\n5,2\n5,3\n", "same timestamp"),
        ("1,1\n2,2\n900000000,3\n", "Too long a history"),
    ):
        page.fill("#forecast-csv", text)
        submit.click()
        expect(panel(page, "forecast").locator(".answer")).to_contain_text(told)
    assert script.bodies == []


def test_models_cannot_be_told_and_none_are(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in)
    page.route("**/v1/models", lambda route: route.fulfill(status=200, body="[]"))
    page.goto(f"{stand_in}/#models")
    expect(panel(page, "models")).to_contain_text("No models")
    page.unroute("**/v1/models")
    page.route("**/v1/models", lambda route: route.abort())
    panel(page, "models").get_by_role("button", name="Refresh").click()
    expect(wait_for_state(page, "models", "failure")).to_contain_text("did not answer")
