// Copying, also where the browser keeps the clipboard from pages without TLS.

import { announce, button, el, setText } from "./dom.js";

const TOLD_MILLISECONDS = 2000;

async function copy(text) {
  if (navigator.clipboard && isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = el("textarea", { class: "hidden-text", tabindex: -1, "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("no clipboard");
}

/** A button that copies `text()` and says so. */
export function copyButton(what, text, options = {}) {
  const one = button(
    what,
    async () => {
      let told = "copy.done";
      try {
        await copy(text());
      } catch {
        told = "copy.refused";
      }
      setText(one, told);
      announce(told);
      setTimeout(() => setText(one, what), TOLD_MILLISECONDS);
    },
    options,
  );
  return one;
}
