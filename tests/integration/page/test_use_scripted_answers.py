"""What people do with the page, between Chromium and a stand-in of the gateway: text that attacks,
logs that are long, keyboards, languages, colours, what is copied and exported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from services.gateway.page import mount_page
from tests.fixtures.stand_in_gateway import Script, serving
from tests.integration.page.conftest import panel, pixels, wait_for_state

OpenPage = Callable[..., Page]
ATTACK = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
OVERRIDE = "\u202e"


def diagnose(page: Page, text: str) -> None:
    page.fill("#diagnose-text", text)
    panel(page, "diagnose").get_by_role("button", name="Diagnose", exact=True).click()
    wait_for_state(page, "diagnose", "result")


def paste(page: Page, selector: str, text: str) -> None:
    page.focus(selector)
    page.evaluate(
        """(text) => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", text);
            document.activeElement.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData, cancelable: true, bubbles: true }));
        }""",
        text,
    )


def background(page: Page, selector: str) -> tuple[int, int, int]:
    colour: list[int] = page.eval_on_selector(
        selector, "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    return (colour[0], colour[1], colour[2])


def test_text_that_attacks_is_only_text(open_page: OpenPage, stand_in: str, script: Script) -> None:
    line = f"{ATTACK} out of memory {OVERRIDE}gpj.exe \x1b[31mred\x1b[0m \x07\u200b"
    script.causes = [
        {
            "label": f"{ATTACK}",
            "probability": 0.9,
            "root": True,
            "evidence": [{"line_number": 2, "text": line}],
            "action": {"en": ATTACK, "zh": ATTACK},
        }
    ]
    page = open_page(stand_in)
    diagnose(page, f"first\n{line}\n")
    script.refusals.append((422, {}, {"title": ATTACK, "what": ATTACK, "got": ATTACK + OVERRIDE}))
    shown = panel(page, "diagnose").locator(".log-row.evidence .log-text")
    expect(shown).to_contain_text("<img src=x")
    expect(shown).to_contain_text("U+202E")
    expect(shown).to_contain_text("\u241b")
    expect(shown).to_contain_text("U+200B")
    assert OVERRIDE not in panel(page, "diagnose").locator(".answer").inner_text()
    page.fill("#diagnose-text", "again")
    page.keyboard.press("Control+Enter")
    expect(wait_for_state(page, "diagnose", "failure")).to_contain_text("<script>")
    page.goto(f"{stand_in}/#logs")
    page.fill("#logs-text", f"{line}\nXid {line}\n")
    page.keyboard.press("Control+Enter")
    expect(wait_for_state(page, "logs", "result")).to_contain_text("U+202E")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#content img, #content script").count() == 0


def test_a_log_of_200_000_lines(
    open_page: OpenPage, stand_in: str, script: Script, tmp_path: Path
) -> None:
    wanted = 199_990
    lines = [f"s {i}" for i in range(1, 100_001)] + ["x"] * 100_000
    lines[wanted - 1] = "CUDA out of memory"
    lines[50_000] = "NCCL WARN closed"
    path = tmp_path / "long.log"
    path.write_text("\n".join(lines) + "\n")
    page = open_page(stand_in)
    page.set_input_files("#diagnose-text-file", path)
    card = panel(page, "diagnose").locator(".document")
    expect(card).to_contain_text("long.log")
    expect(page.locator("#diagnose-text")).to_be_hidden()
    expect(panel(page, "diagnose")).to_contain_text("200,000 lines")
    panel(page, "diagnose").get_by_role("button", name="Diagnose", exact=True).click()
    wait_for_state(page, "diagnose", "result")
    assert script.bodies[0][1]["text"] == path.read_text()
    view = page.locator(".log-scroll")
    expect(page.locator(f'[data-line="{wanted}"].evidence.root')).to_be_in_viewport()
    assert page.locator(".log-row").count() < 100
    page.locator(".jump").nth(1).click()
    expect(page.locator('[data-line="50001"].evidence')).to_be_in_viewport()
    expect(view).to_be_focused()
    page.keyboard.press("Home")
    expect(page.locator('[data-line="1"]')).to_be_in_viewport()
    page.get_by_role("button", name="Previous evidence").click()
    expect(page.locator(f'[data-line="{wanted}"]')).to_be_in_viewport()
    page.locator(".find").fill("s 77777")
    page.keyboard.press("Enter")
    expect(page.locator('[data-line="77777"].target')).to_be_in_viewport()
    assert page.locator(".log-row").count() < 100


def test_more_rows_than_a_browser_can_stack(open_page: OpenPage, stand_in: str) -> None:
    """One million empty-looking lines: a pixel of the scroll bar stands for more than a row."""
    page = open_page(stand_in)
    page.evaluate(
        """async () => {
            const base = document.querySelector('script[type=module]').src;
            const { LogView } = await import(new URL("./log_view.js", base));
            const { LogDocument } = await import(new URL("./log_document.js", base));
            const log = new LogDocument("\\n".repeat(1e6 - 1) + "last");
            const marks = new Map([[654321, { isRoot: true, labels: ["OOM"], texts: [] }]]);
            window.view = new LogView(log, marks);
            document.querySelector("#panel-diagnose .answer").replaceChildren(window.view.element);
        }"""
    )
    page.evaluate("view.jump(654321)")
    expect(page.locator('[data-line="654321"].root')).to_be_in_viewport()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator('[data-line="654321"].root')).to_be_in_viewport()
    assert page.evaluate("view.firstRow()") == 654_321 - 1 - 4 + 2
    page.keyboard.press("End")
    expect(page.locator('[data-line="1000000"]')).to_have_text("1000000last")
    expect(page.locator('[data-line="1000000"]')).to_be_in_viewport()


def test_a_large_paste_does_not_go_into_the_field(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in)
    paste(page, "#diagnose-text", "pasted line\n" * 20_000)
    expect(panel(page, "diagnose").locator(".document")).to_contain_text("Pasted text")
    expect(panel(page, "diagnose")).to_contain_text("20,000 lines")
    panel(page, "diagnose").get_by_role("button", name="Clear").click()
    expect(page.locator("#diagnose-text")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_evidence_is_highlighted_on_the_screen(
    open_page: OpenPage, stand_in: str, scheme: str
) -> None:
    page = open_page(stand_in, color_scheme=scheme)
    diagnose(page, "step 1\nNCCL WARN closed\nCUDA out of memory\n")
    for selector in (".log-row.evidence.root", ".log-row.evidence:not(.root)"):
        colour = background(page, selector)
        assert colour != background(page, ".log-scroll")
        assert pixels(page.locator(".log-scroll").screenshot(), colour) > 3_000


def test_ticket_text_in_both_languages(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in, permissions=["clipboard-read", "clipboard-write"])
    diagnose(page, f"one\nCUDA out of memory {OVERRIDE}\n")
    page.get_by_role("button", name="Copy as ticket text").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    ticket = page.evaluate("navigator.clipboard.readText()")
    for text in (
        "[Presage] CUDA_OutOfMemory, 97.3% sure",
        "2 lines",
        "What to do: Device memory ran out.",
        "line 2: CUDA out of memory <U+202E>",
        "version 3",
    ):
        assert text in ticket
    assert OVERRIDE not in ticket
    page.locator("#language-switch").click()
    page.locator(".verdict button").click()
    expect(page.get_by_role("button", name="已复制")).to_be_visible()
    assert "处理建议: 显存不足" in page.evaluate("navigator.clipboard.readText()")


def test_lines_are_grouped_sorted_filtered_and_exported(
    open_page: OpenPage, stand_in: str, tmp_path: Path
) -> None:
    page = open_page(stand_in, "logs")
    lines = [
        "12:00:01 session opened for user root",
        "",
        "12:00:02 Xid 79 on 0000:3b:00",
        "12:00:03 session opened for user root",
        "12:00:04 Xid 31 on 0000:5e:00 again",
        "=cmd|' /C calc'!A1\tXid",
    ]
    page.fill("#logs-text", "\n".join(lines))
    panel(page, "logs").get_by_role("button", name="Score lines").click()
    answer = wait_for_state(page, "logs", "result")
    expect(answer.locator("h2")).to_have_text("3 of 5 lines are abnormal")
    rows = answer.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.last).to_contain_text("<time> session opened for user root")
    rows.last.locator(".group-toggle").click()
    expect(rows).to_have_count(6)
    expect(rows.last).to_contain_text("12:00:0")
    answer.get_by_role("button", name="First").click()
    expect(rows.first).to_contain_text("session opened")
    answer.get_by_label("Abnormal only").check()
    expect(rows).to_have_count(3)
    answer.get_by_label("Group by template").uncheck()
    expect(rows.first).to_contain_text("12:00:02 Xid 79")
    with page.expect_download() as downloaded:
        answer.get_by_role("button", name="Export TSV").click()
    saved = tmp_path / "saved.tsv"
    downloaded.value.save_as(saved)
    exported = [row.split("\t") for row in saved.read_text("utf-8-sig").splitlines()]
    assert exported[0] == ["line", "score", "result", "label", "text"]
    assert [row[0] for row in exported[1:]] == ["1", "3", "4", "5", "6"]
    assert exported[5][2:] == ["异常", "anomaly", "'=cmd|' /C calc'!A1 Xid"]


def test_lines_beyond_one_request_are_sent_in_several(
    open_page: OpenPage, stand_in: str, script: Script
) -> None:
    page = open_page(stand_in, "logs")
    paste(page, "#logs-text", "\n".join(f"line {i}" for i in range(10_050)))
    page.keyboard.press("Control+Enter")
    answer = wait_for_state(page, "logs", "result")
    expect(answer.locator("h2")).to_have_text("0 of 10,050 lines are abnormal")
    assert [len(body["lines"]) for _, body in script.bodies] == [10_000, 50]


def test_a_query_to_prometheus(open_page: OpenPage, stand_in: str, script: Script) -> None:
    page = open_page(stand_in, "forecast")
    page.get_by_text("Prometheus query", exact=True).click()
    page.fill("#forecast-query", "up == 1")
    panel(page, "forecast").get_by_role("button", name="Forecast", exact=True).click()
    wait_for_state(page, "forecast", "result")
    assert script.bodies[0][1]["query"] == "up == 1"
    page.fill("#forecast-threshold", "60")
    crossings = panel(page, "forecast").locator(".crossings")
    expect(crossings).to_contain_text("Rises above 60 at")
    # Ten in twelve hours from 54.35: 5.65 of them.
    expect(crossings).to_contain_text("predict_linear: Jan 10, 13:53, in 6 h 47 min")
    page.fill("#forecast-threshold", "1000")
    expect(crossings).to_contain_text("Stays below 1,000 for the next 12 h")


def test_addresses_and_keys_open_tabs(open_page: OpenPage, stand_in: str) -> None:
    page = open_page(stand_in, "logs")
    expect(page.get_by_role("tab", name="Logs")).to_have_attribute("aria-selected", "true")
    expect(panel(page, "diagnose")).to_be_hidden()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_id("tab-logs")
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(panel(page, "forecast")).to_be_visible()
    expect(page).to_have_url(f"{stand_in}/#forecast")
    page.keyboard.press("Home")
    expect(panel(page, "diagnose")).to_be_visible()
    page.go_back()
    expect(panel(page, "forecast")).to_be_visible()


def test_the_language_is_the_browsers_until_another_is_chosen(
    open_page: OpenPage, stand_in: str
) -> None:
    page = open_page(stand_in, locale="zh-CN")
    expect(page.locator("h1").first).to_have_text("训练作业为什么失败？")
    page.fill("#diagnose-text", "kept")
    page.locator("#language-switch").click()
    expect(page.locator("h1").first).to_have_text("Why did this training job fail?")
    assert page.input_value("#diagnose-text") == "kept"
    assert page.locator("html").get_attribute("lang") == "en"
    page.reload()
    expect(page.locator("h1").first).to_have_text("Why did this training job fail?")


def test_colours_follow_the_system_until_others_are_chosen(
    open_page: OpenPage, stand_in: str
) -> None:
    page = open_page(stand_in)
    light = background(page, "body")
    page.emulate_media(color_scheme="dark")
    dark = background(page, "body")
    assert sum(light) > 600 > 150 > sum(dark)
    page.locator("#theme-switch").click()
    assert background(page, "body") == light
    page.reload()
    assert background(page, "body") == light


def test_a_gateway_of_one_model_shows_what_it_has(open_page: OpenPage) -> None:
    app = FastAPI()
    app.get("/readyz")(lambda: {})
    app.post("/v1/logs")(lambda: {})
    mount_page(app)
    with serving(app) as url:
        page = open_page(url)
        expect(page.get_by_role("tab")).to_have_text(["Logs"])
        expect(panel(page, "logs")).to_be_visible()
