// Is a model server behind the gateway? The dot beside the name, and a banner when there is none.

import { button, el, setText } from "./dom.js";
import { token } from "./token.js";
import { appendVisible } from "./visible_text.js";

const INTERVAL_MILLISECONDS = 15000;
const TROUBLED_INTERVAL_MILLISECONDS = 5000;
let timer = null;
let last = "";

async function look() {
  clearTimeout(timer);
  let state = "ready";
  let told = "";
  try {
    const headers = { Accept: "application/json" };
    if (token()) headers.Authorization = `Bearer ${token()}`;
    const answer = await fetch("/readyz", { headers, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) state = "unknown";
    else if (!answer.ok) {
      state = "no_triton";
      told = reasonOf(await answer.text());
    }
  } catch {
    state = "no_gateway";
  }
  show(state, told);
  const pause = state === "ready" ? INTERVAL_MILLISECONDS : TROUBLED_INTERVAL_MILLISECONDS;
  if (!document.hidden) timer = setTimeout(look, pause);
}

function reasonOf(text) {
  try {
    const problem = JSON.parse(text);
    const facts = [problem.what ?? problem.detail ?? problem.title, problem.next];
    return facts.filter(Boolean).join(" · ");
  } catch {
    return text.trim().slice(0, 300);
  }
}

function show(state, told) {
  if (state + told === last) return;
  last = state + told;
  const place = document.getElementById("readiness");
  place.dataset.state = state;
  setText(place.querySelector(".readiness-text"), `ready.${state}`);
  const banner = document.getElementById("banner");
  banner.hidden = state !== "no_triton" && state !== "no_gateway";
  if (banner.hidden) {
    banner.replaceChildren();
    return;
  }
  banner.replaceChildren(
    el(
      "div",
      { class: "banner-inner" },
      el("strong", { t: `banner.${state}` }),
      el("p", { t: `banner.${state}.next` }),
      told ? appendVisible(el("p", { class: "told" }), told) : null,
      button("banner.look", () => {
        last = "";
        look();
      }),
    ),
  );
}

export function startReadiness() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
  look();
}
