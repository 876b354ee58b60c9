// Logs: lines in, a score for each out.

import { ApiFailure, InputFailure, ask } from "./api.js";
import { button, el, setText } from "./dom.js";
import { EXAMPLE_LINES } from "./examples.js";
import { number, percent } from "./format.js";
import { LogsTable } from "./logs_table.js";
import { RequestPanel, emptyState } from "./request_panel.js";
import { settings } from "./settings.js";
import { onTab } from "./tabs.js";
import { TextSource, sizeText } from "./text_source.js";
import { download, tsv } from "./tsv.js";
import { visibleText } from "./visible_text.js";

// Beyond this, `python -m services log_pipeline batch` is the way.
const MOST_LINES = 200000;
const COLUMNS = ["line", "score", "result", "label", "text"];

class Logs {
  constructor(host) {
    this.source = new TextSource({
      id: "logs-text",
      label: "logs.lines",
      placeholder: "logs.placeholder",
      limit: settings.largest_log_bytes,
      onChange: () => this.describe(),
      onSubmit: () => this.submit(),
    });
    this.size = el("span", { class: "hint" });
    const submit = (event) => {
      event.preventDefault();
      this.submit();
    };
    const form = el(
      "form",
      { class: "card ask", on: { submit } },
      this.source.element,
      el(
        "div",
        { class: "row controls" },
        el("button", { type: "submit", class: "primary", t: "logs.submit" }),
        this.size,
      ),
    );
    const answer = el("div", { class: "answer" });
    host.append(form, answer);
    this.panel = new RequestPanel(answer, () =>
      emptyState("logs.empty", "logs.empty.text", () => {
        this.source.set(EXAMPLE_LINES);
        this.submit();
      }),
    );
    this.describe();
  }

  describe() {
    const { text } = this.source;
    if (text) setText(this.size, ["input.lines_size", sizeText(text)]);
    else setText(this.size, "logs.limit_note");
  }

  submit() {
    // Blank lines say nothing; the others keep the number they have in the text.
    const lines = this.source.text
      .split("\n")
      .map((text, index) => ({ line: index + 1, text: text.replace(/\r$/, "") }))
      .filter(({ text }) => text.trim());
    if (!lines.length) {
      this.panel.fail(new InputFailure({ what: "logs.no_text", next: "logs.no_text.next" }));
      return;
    }
    if (lines.length > MOST_LINES) {
      this.panel.fail(
        new InputFailure({
          what: "logs.too_many",
          expected: ["input.lines", { lines: () => number(MOST_LINES) }],
          got: ["input.lines", { lines: () => number(lines.length) }],
          next: "logs.too_many.next",
        }),
      );
      return;
    }
    this.panel.run(({ signal, progress }) => this.classify(lines, signal, progress));
  }

  async classify(lines, signal, progress) {
    const rows = [];
    let told = {};
    for (let from = 0; from < lines.length; from += settings.lines_a_request) {
      const part = lines.slice(from, from + settings.lines_a_request);
      progress(lines.length > part.length ? from / lines.length : null, [
        "logs.progress",
        { done: () => number(from), all: () => number(lines.length) },
      ]);
      told = await ask("/v1/logs", { body: { lines: part.map(({ text }) => text) }, signal });
      if (told.results?.length !== part.length) throw new ApiFailure("garbled", { status: 200 });
      told.results.forEach((result, index) => rows.push(rowOf(part[index], result)));
    }
    return this.resultView(rows, told);
  }

  resultView(rows, { threshold, model_version: modelVersion }) {
    const abnormal = rows.filter((row) => row.isAbnormal).length;
    const exportRows = () => {
      const cells = rows.map((row) => [row.line, row.score, row.result, row.label, visibleText(row.text)]);
      download("presage-logs.tsv", tsv(COLUMNS, cells), "text/tab-separated-values");
    };
    const facts = { abnormal: () => number(abnormal), all: () => number(rows.length) };
    return el(
      "div",
      {},
      el(
        "div",
        { class: "row spread verdict" },
        el("h2", { t: ["logs.headline", facts] }),
        button("logs.export", exportRows),
      ),
      new LogsTable(rows).element,
      el("p", { class: "hint" },
        Number.isFinite(threshold)
          ? el("span", { t: ["logs.threshold", { threshold: percent(threshold) }] })
          : null,
        " ",
        modelVersion ? el("span", { t: ["state.model", { version: modelVersion }] }) : null),
    );
  }
}

function rowOf({ line, text }, result) {
  return {
    line,
    text,
    score: Number.isFinite(result.score) ? result.score : -1,
    isAbnormal: result.label === "anomaly",
    label: result.label ?? "",
    result: result.result ?? "",
    error: result.error ? String(result.error.detail ?? result.error) : null,
    template: result.template,
  };
}

export function startLogs(host) {
  new Logs(host);
  onTab("logs", () => {});
}
