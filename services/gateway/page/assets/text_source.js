// Where text comes in: typed or pasted into a field, dropped, or chosen as a file. Large texts are
// kept beside the field, as a card: a text field of 20 MB would freeze the page.

import { button, el } from "./dom.js";
import { failureView } from "./failure_view.js";
import { bytes, number } from "./format.js";
import { readFile, tooLarge } from "./read_file.js";
import { appendVisible } from "./visible_text.js";

const LARGEST_TYPED_CHARACTERS = 200000;
// The browser's own insertion works line by line, with undo: 2,000 lines take it eight seconds.
const LARGEST_INSERTED_CHARACTERS = 5000;
const PREVIEW_LINES = 4;
const PREVIEW_CHARACTERS = 200;

export class TextSource {
  /**
   * id: of the field; label, placeholder: strings; limit: bytes in UTF-8
   * onChange(): another text; onSubmit(): Ctrl+Enter
   */
  constructor({ id, label, placeholder, limit, rows = 9, onChange = () => {}, onSubmit = () => {} }) {
    this.limit = limit;
    this.onChange = onChange;
    this.held = null;
    this.name = null;
    this.field = el("textarea", {
      id,
      rows,
      placeholder,
      spellcheck: "false",
      autocapitalize: "off",
      on: {
        input: () => {
          this.name = null;
          this.complaint.replaceChildren();
          onChange();
        },
        paste: (event) => this.pasted(event),
        keydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onSubmit();
        },
      },
    });
    this.card = el("div", { class: "document", hidden: true });
    this.complaint = el("div", { class: "complaint" });
    this.picker = el("input", {
      type: "file",
      id: `${id}-file`,
      class: "hidden-text",
      tabindex: -1,
      label: "input.choose",
      on: { change: () => this.picker.files[0] && this.take(this.picker.files[0]) },
    });
    this.element = el(
      "div",
      { class: "source" },
      el("div", { class: "row spread" },
        el("label", { for: id, t: label }),
        el("div", { class: "row" },
          button("input.choose", () => this.picker.click(), { class: "small" }),
          button("input.clear", () => this.set(""), { class: "small quiet" }),
        ),
      ),
      this.picker,
      this.field,
      this.card,
      this.complaint,
    );
    this.watchDrops();
  }

  get text() {
    return this.held ?? this.field.value;
  }

  set(text, name = null) {
    this.complaint.replaceChildren();
    const size = new Blob([text]).size;
    if (size > this.limit) {
      this.complaint.replaceChildren(failureView(tooLarge(size, this.limit)));
      return;
    }
    const isLarge = text.length > LARGEST_TYPED_CHARACTERS;
    this.held = isLarge ? text : null;
    this.name = name;
    this.field.value = isLarge ? "" : text;
    this.field.hidden = isLarge;
    this.card.hidden = !isLarge;
    this.card.replaceChildren(...(isLarge ? this.cardOf(text, size) : []));
    this.onChange();
  }

  cardOf(text, size) {
    let end = 0;
    for (let line = 0; line < PREVIEW_LINES && end >= 0; line += 1) end = text.indexOf("\n", end + 1);
    const preview = text.slice(0, end < 0 ? text.length : end).split("\n");
    const lines = preview.map((line) =>
      appendVisible(el("span", { class: "line" }), line.slice(0, PREVIEW_CHARACTERS)),
    );
    return [
      el(
        "div",
        { class: "row spread" },
        el("strong", this.name ? { text: this.name } : { t: "input.pasted" }),
        el("span", { class: "hint", t: ["input.size", { size: () => bytes(size) }] }),
      ),
      el("pre", {}, lines, el("span", { class: "line hint", text: "…" })),
    ];
  }

  pasted(event) {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (text.length <= LARGEST_INSERTED_CHARACTERS) return;
    event.preventDefault();
    const { selectionStart, selectionEnd, value } = this.field;
    if (text.length + value.length > LARGEST_TYPED_CHARACTERS) {
      this.set(value.slice(0, selectionStart) + text + value.slice(selectionEnd));
      return;
    }
    this.field.setRangeText(text.replace(/\r\n?/g, "\n"), selectionStart, selectionEnd, "end");
    this.field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  async take(file) {
    this.picker.value = "";
    const bar = el("progress", { max: 1, label: "input.reading" });
    this.complaint.replaceChildren(bar);
    try {
      const text = await readFile(file, this.limit, (fraction) => {
        bar.value = fraction;
      });
      this.set(text, file.name);
    } catch (failure) {
      this.complaint.replaceChildren(failureView(failure));
    }
  }

  watchDrops() {
    const isFile = (event) => [...event.dataTransfer.types].includes("Files");
    this.element.addEventListener("dragover", (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      this.element.classList.add("dropping");
    });
    this.element.addEventListener("dragleave", () => this.element.classList.remove("dropping"));
    this.element.addEventListener("drop", (event) => {
      this.element.classList.remove("dropping");
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.take(event.dataTransfer.files[0]);
    });
  }
}

/** Drops beside a field would make the browser leave the page. */
export function refuseStrayDrops() {
  for (const kind of ["dragover", "drop"])
    addEventListener(kind, (event) => {
      if (event.dataTransfer && [...event.dataTransfer.types].includes("Files")) event.preventDefault();
    });
}

export function countLines(text) {
  if (!text) return 0;
  let lines = 1;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines += 1;
  return text.endsWith("\n") ? lines - 1 : lines;
}

export function sizeText(text) {
  return { lines: () => number(countLines(text)), size: () => bytes(new Blob([text]).size) };
}
