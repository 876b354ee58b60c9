// One served model: its version and hash, how good it is, its proof, and how it does now.

import { copyButton } from "./clipboard.js";
import { el, setText } from "./dom.js";
import { measure, milliseconds, number } from "./format.js";
import { appendVisible } from "./visible_text.js";

const HASH_LETTERS = 12;
// What of `live` is shown, and how; what the gateway does not tell is left out.
const LIVE = [
  ["requests", number],
  ["requests_per_second", (value) => number(value, 1)],
  ["failures", number],
  ["mean_latency_ms", milliseconds],
  ["mean_queue_ms", milliseconds],
  ["mean_compute_ms", milliseconds],
  ["mean_batch_size", (value) => number(value, 1)],
  ["pending_requests", number],
];

/** {element, update(model)}: update writes what changes while the page is open. */
export function modelCard(model) {
  const state = el("span", { class: "badge" });
  const live = el("dl", { class: "live" });
  const liveNote = el("p", { class: "hint", t: "models.no_live" });
  const element = el(
    "article",
    { class: "card model" },
    el("header", { class: "row spread" },
      el("h2", { class: "mono", text: model.name }),
      el("span", { class: "row" },
        el("span", { class: "badge plain", t: ["models.version", { version: model.version ?? "–" }] }),
        state)),
    identity(model),
    el("section", {}, el("h3", { t: "models.live" }), live, liveNote),
    qualityTable(model.quality),
    parityPart(model.parity),
  );
  const update = (told) => {
    const isReady = String(told.state).toUpperCase() === "READY";
    state.className = isReady ? "badge normal" : "badge abnormal";
    if (isReady) setText(state, "models.ready");
    else setText(state, ["models.state", { state: told.state ?? "–" }]);
    const figures = LIVE.filter(([name]) => Number.isFinite(told.live?.[name]));
    live.hidden = !figures.length;
    liveNote.hidden = figures.length > 0;
    live.replaceChildren(
      ...figures.map(([name, show]) =>
        el("div", {},
          el("dt", { t: `models.live.${name}` }),
          el("dd", { write: (place) => { place.textContent = show(told.live[name]); } }))),
    );
  };
  update(model);
  return { element, update };
}

function identity(model) {
  if (!model.sha256) return null;
  return el(
    "p",
    { class: "row identity" },
    el("span", { class: "hint", text: "sha256" }),
    el("code", { class: "hash", text: `${model.sha256.slice(0, HASH_LETTERS)}…` }),
    copyButton("models.copy_hash", () => model.sha256, { class: "small" }),
  );
}

function qualityTable(quality) {
  if (!quality?.length) return el("section", {}, el("h3", { t: "models.quality" }), el("p", { class: "hint", t: "models.no_quality" }));
  const figure = (value) =>
    el("td", { class: "figure", write: (cell) => { cell.textContent = measure(value); } });
  const row = (one) => {
    const isBetter = one.higher_is_better ? one.value > one.baseline_value : one.value < one.baseline_value;
    return el(
      "tr",
      {},
      el("th", { scope: "row" },
        el("span", { class: "mono", text: one.metric }),
        " ",
        el("span", { class: "hint", t: one.higher_is_better ? "models.higher" : "models.lower" })),
      el("td", { class: isBetter ? "figure better" : "figure", write: (cell) => { cell.textContent = measure(one.value); } }),
      figure(one.baseline_value),
      el("td", { text: one.baseline }),
      el("td", { text: one.split }),
      el("td", { class: "figure", write: (cell) => { cell.textContent = number(one.rows); } }),
    );
  };
  const heads = [["metric", ""], ["value", "figure"], ["baseline_value", "figure"], ["baseline", ""], ["split", ""], ["rows", "figure"]];
  return el(
    "section",
    {},
    el("h3", { t: "models.quality" }),
    el("div", { class: "table-frame", tabindex: 0, role: "region", label: "models.quality" },
      el("table", {},
        el("thead", {}, el("tr", {}, heads.map(([head, kind]) =>
          el("th", { scope: "col", class: kind, t: `models.column.${head}` })))),
        el("tbody", {}, quality.map(row)))),
  );
}

function parityPart(parity) {
  const title = el("h3", { t: "models.parity" });
  if (!parity || parity.passed === undefined)
    return el("section", {}, title, el("p", { class: "hint", t: "models.no_parity" }));
  const facts = [];
  const fact = (name, value) => {
    if (value === undefined || value === null || value === "") return;
    facts.push(el("dt", { t: `models.parity.${name}` }), appendVisible(el("dd"), String(value)));
  };
  fact("decisions", parity.decisions === undefined ? null : number(parity.decisions));
  fact("flipped", parity.flipped === undefined ? null : number(parity.flipped));
  const worst = parity.worst;
  fact("worst", worst && typeof worst === "object" ? `${measure(worst.difference)} (${worst.at})` : worst);
  fact("target", [parity.target, parity.precision].filter(Boolean).join(", "));
  fact("created_at", parity.created_at);
  const rungs = (parity.rungs ?? []).map((rung) =>
    el("tr", {},
      el("th", { scope: "row", class: "mono", text: rung.rung ?? rung.name }),
      el("td", {}, verdict(rung.passed)),
      el("td", { class: "figure", text: rung.decisions === undefined ? "–" : number(rung.decisions) }),
      el("td", { class: "figure", text: rung.flipped === undefined ? "–" : number(rung.flipped) })),
  );
  return el(
    "section",
    {},
    title,
    el("div", { class: "row" }, verdict(parity.passed)),
    el("details", {},
      el("summary", { t: "models.parity.report" }),
      el("dl", { class: "facts" }, facts),
      rungs.length
        ? el("div", { class: "table-frame", tabindex: 0, role: "region", label: "models.parity.report" },
            el("table", {}, el("thead", {}, el("tr", {},
              ["rung", "verdict", "decisions", "flipped"].map((head, index) =>
                el("th", { scope: "col", class: index > 1 ? "figure" : "", t: `models.parity.${head}` })))),
            el("tbody", {}, rungs)))
        : null),
  );
}

function verdict(hasPassed) {
  return el("span", {
    class: hasPassed ? "badge normal" : "badge abnormal",
    t: hasPassed ? "models.parity.passed" : "models.parity.failed",
  });
}
