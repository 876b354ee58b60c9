// The lines' scores: grouped by template, sorted, filtered; groups open to their lines.
//
// Roles are written out because narrow screens lay the rows out as blocks, and browsers then forget
// that they are a table.

import { button, el, setText } from "./dom.js";
import { confidence } from "./diagnose.js";
import { number } from "./format.js";
import { groupByTemplate } from "./log_templates.js";
import { appendVisible } from "./visible_text.js";

const GROUPS_AT_ONCE = 200;
const LINES_AT_ONCE = 100;
const LONGEST_SHOWN_CHARACTERS = 600;
const ORDERS = {
  score: (a, b) => b.highest - a.highest || b.rows.length - a.rows.length,
  count: (a, b) => b.rows.length - a.rows.length || b.highest - a.highest,
  line: (a, b) => a.rows[0].line - b.rows[0].line,
};

export class LogsTable {
  /** rows: {line, text, score, isAbnormal, error, template?}, in the order of the lines */
  constructor(rows) {
    this.rows = rows;
    this.order = "score";
    this.isAbnormalOnly = false;
    this.isGrouped = true;
    this.body = el("tbody", { role: "rowgroup" });
    this.foot = el("div", { class: "row center" });
    this.heads = {
      score: this.sortHead("score", "logs.column.score", "column-score"),
      count: this.sortHead("count", "logs.column.count", "column-count"),
      line: this.sortHead("line", "logs.column.line", "column-line"),
    };
    this.element = el(
      "div",
      { class: "logs-result" },
      this.filters(),
      el(
        "div",
        { class: "table-frame", tabindex: 0, role: "region", label: "logs.table" },
        el(
          "table",
          { class: "logs", role: "table" },
          el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
            this.heads.score,
            el("th", { scope: "col", role: "columnheader", class: "column-verdict", t: "logs.column.verdict" }),
            this.heads.count,
            this.heads.line,
            el("th", { scope: "col", role: "columnheader", class: "column-text", t: "logs.column.text" }))),
          this.body,
        ),
      ),
      this.foot,
    );
    this.draw();
  }

  sortHead(order, what, className) {
    const choose = () => {
      this.order = order;
      this.draw();
    };
    return el("th", { scope: "col", role: "columnheader", class: className }, button(what, choose, { class: "sort" }));
  }

  filters() {
    const check = (id, what, isOn, change) => {
      const box = el("input", { type: "checkbox", id, checked: isOn });
      box.addEventListener("change", () => {
        change(box.checked);
        this.draw();
      });
      return el("span", { class: "row check" }, box, el("label", { for: id, t: what }));
    };
    return el(
      "div",
      { class: "row filters" },
      check("logs-abnormal", "logs.abnormal_only", false, (isOn) => { this.isAbnormalOnly = isOn; }),
      check("logs-grouped", "logs.grouped", true, (isOn) => { this.isGrouped = isOn; }),
    );
  }

  groups() {
    const rows = this.isAbnormalOnly ? this.rows.filter((row) => row.isAbnormal) : this.rows;
    const groups = this.isGrouped
      ? groupByTemplate(rows)
      : rows.map((row) => ({
          template: row.text,
          rows: [row],
          highest: row.score,
          abnormal: Number(row.isAbnormal),
        }));
    return groups.sort(ORDERS[this.order]);
  }

  draw() {
    for (const [order, head] of Object.entries(this.heads))
      if (order === this.order) head.setAttribute("aria-sort", order === "line" ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    this.shown = this.groups();
    this.body.replaceChildren();
    this.drawMore(0);
    if (!this.shown.length)
      this.body.append(el("tr", { role: "row" }, el("td", { role: "cell", colspan: 5, class: "hint nothing", t: "logs.nothing" })));
  }

  drawMore(from) {
    for (const group of this.shown.slice(from, from + GROUPS_AT_ONCE)) this.body.append(...this.groupRows(group));
    const next = from + GROUPS_AT_ONCE;
    const left = this.shown.length - next;
    this.foot.replaceChildren();
    if (left > 0)
      this.foot.append(button(["logs.more", { left: () => number(left) }], () => this.drawMore(next)));
  }

  groupRows(group) {
    const first = group.rows[0];
    if (group.rows.length === 1) return [lineRow(first, "single")];
    const cell = el("td", { role: "cell", class: "log-cell" });
    let opened = [];
    const toggle = el("button", {
      type: "button",
      class: "group-toggle",
      "aria-expanded": "false",
      on: {
        click: () => {
          const isOpen = toggle.getAttribute("aria-expanded") === "true";
          toggle.setAttribute("aria-expanded", String(!isOpen));
          for (const row of opened) row.remove();
          opened = isOpen ? [] : linesOf(group, head);
        },
      },
    });
    appendVisible(toggle, shortened(group.template));
    cell.append(toggle);
    const head = el(
      "tr",
      { role: "row", class: group.abnormal ? "group abnormal" : "group" },
      el("td", { role: "cell", class: "column-score" }, confidence(group.highest)),
      el("td", { role: "cell", class: "column-verdict" }, verdict(group.abnormal, group.rows.length)),
      el("td", { role: "cell", class: "column-count figure", text: number(group.rows.length) }),
      el("td", { role: "cell", class: "column-line figure", text: number(first.line) }),
      cell,
    );
    return [head];
  }
}

/** Puts the group's lines below its head, some at a time, and returns their rows. */
function linesOf(group, head) {
  const rows = [...group.rows].sort((a, b) => b.score - a.score || a.line - b.line);
  const made = [];
  const add = (from, after) => {
    const part = rows.slice(from, from + LINES_AT_ONCE).map((row) => lineRow(row, "member"));
    const left = rows.length - from - LINES_AT_ONCE;
    if (left > 0) {
      const more = el("tr", { role: "row", class: "member" }, el("td", { role: "cell", colspan: 5 },
        button(["logs.more_lines", { left: () => number(left) }], () => {
          add(from + LINES_AT_ONCE, more);
          more.remove();
        }, { class: "small" })));
      part.push(more);
    }
    after.after(...part);
    made.push(...part);
  };
  add(0, head);
  return made;
}

function lineRow(row, kind) {
  const text = appendVisible(el("span", { class: "log-text" }), shortened(row.text));
  return el(
    "tr",
    { role: "row", class: row.isAbnormal ? `${kind} abnormal` : kind },
    el("td", { role: "cell", class: "column-score" }, row.error ? null : confidence(row.score)),
    el("td", { role: "cell", class: "column-verdict" },
      row.error
        ? appendVisible(el("span", { class: "badge warn" }), row.error)
        : verdict(Number(row.isAbnormal), 1)),
    el("td", { role: "cell", class: "column-count figure", text: "1" }),
    el("td", { role: "cell", class: "column-line figure", text: number(row.line) }),
    el("td", { role: "cell", class: "log-cell", lang: "zh-CN" }, text),
  );
}

function verdict(abnormal, all) {
  const place = el("span", { class: abnormal ? "badge abnormal" : "badge normal" });
  if (abnormal && abnormal < all)
    setText(place, ["logs.some_abnormal", { abnormal: () => number(abnormal), all: () => number(all) }]);
  else setText(place, abnormal ? "logs.abnormal" : "logs.normal");
  return place;
}

function shortened(text) {
  return text.length > LONGEST_SHOWN_CHARACTERS ? `${text.slice(0, LONGEST_SHOWN_CHARACTERS)}…` : text;
}
