// A log of any length in a window of fixed height: only the rows in sight exist. Marked lines are
// highlighted and can be jumped to.

import { announce, button, el, setText } from "./dom.js";
import { number } from "./format.js";
import { appendVisible } from "./visible_text.js";

const ROW_PIXELS = 20;
const BEYOND_ROWS = 12;
// Browsers end elements at about 33 million pixels; beyond this a pixel stands for more than a row.
const TALLEST_PIXELS = 15000000;
const LINES_ABOVE_TARGET = 4;
const LONGEST_DETAIL_CHARACTERS = 4000;
// More marks than this on the strip beside the log would lie on each other.
const MOST_STRIP_MARKS = 200;

export class LogView {
  /**
   * log: LogDocument
   * marks: Map of line number → {isRoot, labels: [cause], texts: [part of the line that proves it]}
   */
  constructor(log, marks) {
    this.log = log;
    this.marks = marks;
    this.markedLines = [...marks.keys()].filter((n) => n >= 1 && n <= log.count).sort((a, b) => a - b);
    this.target = 0;
    this.drawn = null;
    this.height = Math.min(log.count * ROW_PIXELS, TALLEST_PIXELS);
    this.isScaled = log.count * ROW_PIXELS > TALLEST_PIXELS;
    this.pinned = null;
    this.rows = el("div", { class: "log-rows" });
    this.space = el("div", { class: "log-space" }, this.rows);
    this.space.style.height = `${this.height}px`;
    this.scroller = el(
      "div",
      { class: "log-scroll", tabindex: 0, role: "region", label: "log.label", lang: "zh-CN" },
      this.space,
    );
    this.scroller.style.setProperty("--digits", String(String(log.count).length));
    this.scroller.addEventListener("scroll", () => this.schedule());
    this.scroller.addEventListener("keydown", (event) => this.stepped(event));
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-line]");
      if (row) this.choose(Number(row.dataset.line));
    });
    this.detail = el("div", { class: "log-detail", hidden: true });
    this.element = el(
      "div",
      { class: "log-view" },
      this.toolbar(),
      el("div", { class: "log-frame" }, this.scroller, this.strip()),
      this.detail,
    );
    new ResizeObserver(() => this.draw(true)).observe(this.scroller);
  }

  toolbar() {
    this.position = el("span", { class: "hint" });
    this.markPosition();
    const has = this.markedLines.length > 0;
    const step = (by) => () => this.jumpToMark(by);
    const field = el("input", { type: "search", label: "log.find", placeholder: "log.find", class: "find" });
    const find = (event) => {
      event.preventDefault();
      if (!field.value) return;
      const line = this.log.find(field.value, this.target);
      if (line) this.jump(line, false);
      else announce("log.not_found");
      field.classList.toggle("unfound", !line);
    };
    return el(
      "div",
      { class: "log-toolbar" },
      has ? button("log.previous", step(-1), { class: "small", label: "log.previous_evidence" }) : null,
      has ? button("log.next", step(1), { class: "small", label: "log.next_evidence" }) : null,
      this.position,
      el("form", { class: "row", role: "search", on: { submit: find } }, field,
        el("button", { type: "submit", class: "small", t: "log.find_next" })),
    );
  }

  markPosition() {
    const at = this.markedLines.indexOf(this.target);
    const values = { at: at < 0 ? "–" : at + 1, all: this.markedLines.length };
    if (this.markedLines.length) setText(this.position, ["log.evidence", values]);
    else setText(this.position, ["log.lines", { lines: () => number(this.log.count) }]);
  }

  /** Where in the whole log the evidence lies. Pointers only: the buttons do the same. */
  strip() {
    const strip = el("div", { class: "log-strip", "aria-hidden": "true" });
    for (const line of this.markedLines.slice(0, MOST_STRIP_MARKS)) {
      const mark = el("span", {
        class: this.marks.get(line).isRoot ? "root" : "",
        on: { click: () => this.jump(line) },
      });
      mark.style.top = `${((line - 0.5) / this.log.count) * 100}%`;
      strip.append(mark);
    }
    return strip;
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  get rowsInSight() {
    return Math.max(1, Math.floor(this.scroller.clientHeight / ROW_PIXELS));
  }

  /** The row (from 0) at the top of the window. */
  firstRow() {
    if (!this.isScaled) return Math.floor(this.scroller.scrollTop / ROW_PIXELS);
    if (this.pinned && Math.abs(this.scroller.scrollTop - this.pinned.scrollTop) < 1)
      return this.pinned.row;
    this.pinned = null;
    const share = this.scroller.scrollTop / (this.height - this.scroller.clientHeight);
    return Math.round(share * (this.log.count - this.rowsInSight));
  }

  scrollToRow(row) {
    const first = Math.min(Math.max(row, 0), Math.max(this.log.count - this.rowsInSight, 0));
    if (!this.isScaled) {
      this.scroller.scrollTop = first * ROW_PIXELS;
    } else {
      const share = first / (this.log.count - this.rowsInSight);
      this.scroller.scrollTop = share * (this.height - this.scroller.clientHeight);
      this.pinned = { row: first, scrollTop: this.scroller.scrollTop };
    }
    this.draw(true);
  }

  draw(isForced = false) {
    const first = this.firstRow();
    const from = Math.max(0, first - BEYOND_ROWS);
    const to = Math.min(this.log.count, first + this.rowsInSight + BEYOND_ROWS + 1);
    const key = `${from}-${to}-${this.target}`;
    if (!isForced && key === this.drawn && !this.isScaled) return;
    this.drawn = key;
    const top = this.isScaled
      ? this.scroller.scrollTop - (first - from) * ROW_PIXELS
      : from * ROW_PIXELS;
    this.rows.style.transform = `translateY(${top}px)`;
    const rows = [];
    for (let index = from; index < to; index += 1) rows.push(this.row(index + 1));
    this.rows.replaceChildren(...rows);
  }

  row(line) {
    const mark = this.marks.get(line);
    const classes = ["log-row"];
    if (mark) classes.push(mark.isRoot ? "evidence root" : "evidence");
    if (line === this.target) classes.push("target");
    const row = el("div", { class: classes.join(" "), dataset: { line } });
    const { text, left } = this.log.shown(line);
    const content = appendParts(el("span", { class: "log-text" }), text, mark?.texts ?? []);
    if (left) content.append(el("span", { class: "hint", t: ["log.more", { characters: () => number(left) }] }));
    row.append(el("span", { class: "log-number", text: line }), content);
    return row;
  }

  stepped(event) {
    const page = this.rowsInSight - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    let row = steps[event.key] === undefined ? undefined : this.firstRow() + steps[event.key];
    if (event.key === "Home") row = 0;
    if (event.key === "End") row = this.log.count;
    if (row === undefined || event.target !== this.scroller) return;
    event.preventDefault();
    this.scrollToRow(row);
  }

  jumpToMark(by) {
    const lines = this.markedLines;
    const after = by > 0 ? lines.find((n) => n > this.target) : lines.findLast((n) => n < this.target);
    this.jump(after ?? (by > 0 ? lines[0] : lines.at(-1)));
  }

  /** Brings a line into the window and marks it; `isFocused`: the keyboard goes there too. */
  jump(line, isFocused = true) {
    this.choose(line);
    this.scrollToRow(line - 1 - LINES_ABOVE_TARGET);
    this.scroller.scrollLeft = 0;
    if (!isFocused) return;
    this.scroller.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest" });
  }

  choose(line) {
    this.target = line;
    this.markPosition();
    const { text, left } = this.log.shown(line, LONGEST_DETAIL_CHARACTERS);
    const whole = appendVisible(el("p", { class: "log-whole", lang: "zh-CN" }), text);
    if (left) whole.append(el("span", { class: "hint", t: ["log.more", { characters: () => number(left) }] }));
    const labels = (this.marks.get(line)?.labels ?? []).map((label) =>
      el("span", { class: "chip", text: label }),
    );
    this.detail.hidden = false;
    this.detail.replaceChildren(
      el("p", { class: "row" }, el("strong", { t: ["log.line", { line }] }), labels),
      whole,
    );
    this.draw(true);
  }
}

/** The line with the parts that prove something marked inside it. */
function appendParts(parent, text, parts) {
  let start = 0;
  const found = parts
    .map((part) => ({ at: part ? text.indexOf(part) : -1, length: part.length }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at);
  for (const { at, length } of found) {
    if (at < start) continue;
    appendVisible(parent, text.slice(start, at));
    parent.append(appendVisible(el("mark"), text.slice(at, at + length)));
    start = at + length;
  }
  return appendVisible(parent, text.slice(start));
}
