// A failure as people read it: what kind, what, where, expected, got, and what to do next.

import { InputFailure } from "./api.js";
import { button, el } from "./dom.js";
import { hasString } from "./strings.js";
import { appendVisible } from "./visible_text.js";

const PARTS = ["where", "expected", "got", "next"];

/** An element for the failure; `retry` (or null) is the button's. */
export function failureView(failure, retry = null) {
  const facts = failure instanceof InputFailure ? inputFacts(failure) : apiFacts(failure);
  const list = el("dl", { class: "facts" });
  for (const part of PARTS) {
    if (!facts[part]) continue;
    list.append(el("dt", { t: `failure.${part}` }), facts[part]("dd"));
  }
  return el(
    "div",
    { class: "state failure", role: "alert" },
    facts.title("h2"),
    facts.what ? facts.what("p") : null,
    list.children.length ? list : null,
    retry ? el("div", { class: "row" }, button("failure.retry", retry, { class: "primary" })) : null,
    facts.reference ? facts.reference("p") : null,
  );
}

/** Each fact is a function from a tag to an element. */
function inputFacts({ parts }) {
  const facts = {};
  for (const [name, what] of Object.entries(parts)) facts[name] = (tag) => el(tag, { t: what });
  return { ...facts, title: facts.what, what: null };
}

function apiFacts(failure) {
  const { kind, status, problem = {}, requestId } = failure;
  const plain = (text) => (tag) => appendVisible(el(tag), String(text));
  if (!kind) {
    // A fault of our own scripts: say so, and keep the trace where developers look.
    console.error(failure);
    return { title: (tag) => el(tag, { t: "failure.page" }), got: plain(failure.message) };
  }
  const facts = {};
  // The gateway's own title is in the page's language; the parts of the problem are English.
  facts.title =
    kind === "problem" && problem.title
      ? plain(problem.title)
      : (tag) => el(tag, { t: [`failure.${kind}`, { status }] });
  const what = problem.what ?? problem.detail ?? (kind === "problem" ? null : problem.title);
  if (what) facts.what = plain(what);
  for (const part of ["where", "expected", "got", "next"])
    if (problem[part]) facts[part] = plain(problem[part]);
  if (!facts.next && hasString(`failure.${kind}.next`))
    facts.next = (tag) => el(tag, { t: `failure.${kind}.next` });
  const reference = problem.request_id ?? requestId;
  if (reference)
    facts.reference = (tag) =>
      el(tag, { class: "hint", t: ["failure.reference", { reference, status }] });
  return facts;
}
