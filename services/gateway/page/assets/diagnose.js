// Diagnose: a job's log in, its causes beside the lines that prove them out.

import { InputFailure, ask, firstResult } from "./api.js";
import { copyButton } from "./clipboard.js";
import { bilingual, button, el, setText } from "./dom.js";
import { EXAMPLE_LOG } from "./examples.js";
import { number, percent } from "./format.js";
import { LogDocument } from "./log_document.js";
import { LogView } from "./log_view.js";
import { RequestPanel, emptyState, uploadProgress } from "./request_panel.js";
import { settings } from "./settings.js";
import { onTab } from "./tabs.js";
import { TextSource, sizeText } from "./text_source.js";
import { headline, ticketText } from "./ticket.js";
import { appendVisible } from "./visible_text.js";

const MOST_EVIDENCE_SHOWN = 6;
const LONGEST_EVIDENCE_CHARACTERS = 240;

class Diagnose {
  constructor(host) {
    this.source = new TextSource({
      id: "diagnose-text",
      label: "diagnose.log",
      placeholder: "diagnose.placeholder",
      limit: settings.largest_log_bytes,
      onChange: () => this.describe(),
      onSubmit: () => this.submit(),
    });
    this.threshold = el("input", {
      type: "number",
      id: "diagnose-threshold",
      min: 0,
      max: 1,
      step: "any",
      placeholder: "diagnose.threshold.own",
    });
    this.size = el("span", { class: "hint" });
    const form = el(
      "form",
      {
        class: "card ask",
        novalidate: true,
        on: {
          submit: (event) => {
            event.preventDefault();
            this.submit();
          },
        },
      },
      this.source.element,
      el(
        "div",
        { class: "row spread controls" },
        el(
          "div",
          { class: "row" },
          el("button", { type: "submit", class: "primary", t: "diagnose.submit" }),
          this.size,
        ),
        el(
          "div",
          { class: "row field" },
          el("label", { for: "diagnose-threshold", t: "diagnose.threshold" }),
          this.threshold,
        ),
      ),
    );
    const answer = el("div", { class: "answer" });
    host.append(form, answer);
    this.panel = new RequestPanel(answer, () =>
      emptyState("diagnose.empty", "diagnose.empty.text", () => {
        this.source.set(EXAMPLE_LOG, "example.log");
        this.submit();
      }),
    );
    this.describe();
  }

  describe() {
    const { text } = this.source;
    if (text) setText(this.size, ["input.lines_size", sizeText(text)]);
    else setText(this.size, "input.limit_note");
  }

  submit() {
    const { text, name } = this.source;
    if (!text.trim()) {
      this.panel.fail(new InputFailure({ what: "diagnose.no_text", next: "diagnose.no_text.next" }));
      return;
    }
    const body = { text };
    if (this.threshold.value !== "" || this.threshold.validity.badInput) {
      const threshold = this.threshold.valueAsNumber;
      if (!(threshold > 0 && threshold < 1)) {
        this.panel.fail(
          new InputFailure({ what: "diagnose.bad_threshold", expected: "diagnose.bad_threshold.expected" }),
        );
        return;
      }
      body.threshold = threshold;
    }
    this.panel.run(async ({ signal, progress }) => {
      const answer = await ask("/v1/diagnose", { body, signal, onUpload: uploadProgress(progress) });
      return this.resultView(firstResult(answer), new LogDocument(text, name), answer.model_version);
    });
  }

  resultView(result, log, modelVersion) {
    const at = new Date();
    const view = new LogView(log, marksOf(result));
    const causes = result.causes.map((cause) => causeCard(cause, view));
    if (!causes.length)
      causes.push(
        el("div", { class: "card cause" },
          el("p", { t: result.unknown ? "diagnose.unknown.text" : "diagnose.healthy.text" })),
      );
    const first = view.markedLines.find((line) => view.marks.get(line).isRoot) ?? view.markedLines[0];
    if (first) requestAnimationFrame(() => view.jump(first, false));
    return el(
      "div",
      { class: "diagnosis" },
      el(
        "div",
        { class: "row spread verdict" },
        el("h2", { write: (heading) => { heading.textContent = headline(result); } }),
        copyButton("diagnose.copy", () => ticketText(result, log, modelVersion, at)),
      ),
      el("div", { class: "causes" }, causes, probabilityList(result.probabilities),
        modelVersion ? el("p", { class: "hint", t: ["state.model", { version: modelVersion }] }) : null),
      view.element,
    );
  }
}

/** Line number → what it proves. */
function marksOf(result) {
  const marks = new Map();
  for (const cause of result.causes)
    for (const { line_number: line, text } of cause.evidence ?? []) {
      const mark = marks.get(line) ?? { isRoot: false, labels: [], texts: [] };
      mark.isRoot ||= Boolean(cause.root);
      if (!mark.labels.includes(cause.label)) mark.labels.push(cause.label);
      mark.texts.push(text);
      marks.set(line, mark);
    }
  return marks;
}

function causeCard(cause, view) {
  const evidence = cause.evidence ?? [];
  const items = evidence.map(({ line_number: line, text }, index) =>
    el(
      "li",
      { hidden: index >= MOST_EVIDENCE_SHOWN },
      el(
        "button",
        { type: "button", class: "jump", on: { click: () => view.jump(line) } },
        el("span", { class: "jump-line", t: ["log.line", { line }] }),
        appendVisible(
          el("span", { class: "jump-text", lang: "zh-CN" }),
          text.length > LONGEST_EVIDENCE_CHARACTERS ? `${text.slice(0, LONGEST_EVIDENCE_CHARACTERS)}…` : text,
        ),
      ),
    ),
  );
  const more = evidence.length - MOST_EVIDENCE_SHOWN;
  const list = el("ul", { class: "evidence-list" }, items);
  const showAll = (event) => {
    for (const item of items) item.hidden = false;
    items[MOST_EVIDENCE_SHOWN].firstChild.focus();
    event.target.remove();
  };
  return el(
    "article",
    { class: cause.root ? "card cause root" : "card cause" },
    el(
      "header",
      { class: "row spread" },
      el("h3", { text: cause.label }),
      el("span", { class: cause.root ? "badge root" : "badge", t: cause.root ? "diagnose.root" : "diagnose.also" }),
    ),
    confidence(cause.probability),
    cause.action ? el("h4", { t: "diagnose.action" }) : null,
    cause.action ? bilingual(el("p", { class: "action" }), cause.action) : null,
    el("h4", { t: items.length ? "diagnose.evidence" : "diagnose.no_evidence" }),
    items.length ? list : null,
    more > 0
      ? button(["diagnose.more_evidence", { more: () => number(more) }], showAll, { class: "small" })
      : null,
  );
}

/** A bar and the figure beside it. */
export function confidence(share) {
  const fill = el("span", { class: "bar-fill" });
  fill.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return el(
    "div",
    { class: "confidence" },
    el("span", { class: "bar", "aria-hidden": "true" }, fill),
    el("span", { class: "figure", text: percent(share) }),
  );
}

function probabilityList(probabilities) {
  const entries = Object.entries(probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  if (!entries.length) return null;
  return el(
    "details",
    { class: "card probabilities" },
    el("summary", { t: ["diagnose.all", { count: entries.length }] }),
    el(
      "ul",
      {},
      entries.map(([label, share]) => el("li", {}, el("span", { class: "mono", text: label }), confidence(share))),
    ),
  );
}

export function startDiagnose(host) {
  const tab = new Diagnose(host);
  onTab("diagnose", () => {});
  return tab;
}
