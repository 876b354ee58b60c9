// The bearer token: asked for when the API says 401, kept for this tab of the browser only.

import { button, el } from "./dom.js";

const KEY = "presage_token";
const waiting = new Set();

export function token() {
  return sessionStorage.getItem(KEY);
}

/** Shows the field; `retry()` runs once a token is given. */
export function askToken(retry) {
  waiting.add(retry);
  const host = document.getElementById("token");
  const wasRefused = token() !== null;
  const input = el("input", {
    type: "password",
    id: "token-field",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const use = (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    sessionStorage.setItem(KEY, input.value.trim());
    host.hidden = true;
    host.replaceChildren();
    const retries = [...waiting];
    waiting.clear();
    for (const one of retries) one();
  };
  const form = el(
    "form",
    { class: "token-form", on: { submit: use } },
    el("label", { for: "token-field", t: wasRefused ? "token.refused" : "token.needed" }),
    el(
      "div",
      { class: "row" },
      input,
      el("button", { type: "submit", class: "primary", t: "token.use" }),
      button("token.forget", () => sessionStorage.removeItem(KEY), { hidden: !wasRefused }),
    ),
    el("p", { class: "hint", t: "token.hint" }),
  );
  const isNew = host.hidden;
  if (isNew || wasRefused) host.replaceChildren(form);
  host.hidden = false;
  if (isNew) input.focus();
}
