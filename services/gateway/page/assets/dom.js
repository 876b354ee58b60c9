// Elements whose texts follow the language. Text enters the page as text nodes and attributes only:
// nothing here or anywhere else in these files parses HTML.

import { language, onLanguageChange, translate } from "./strings.js";

// [data attribute of the template, attribute it fills]; "" is the text itself.
const FILLED = [
  ["data-t", ""],
  ["data-t-label", "aria-label"],
  ["data-t-placeholder", "placeholder"],
  ["data-t-title", "title"],
];
const values = new WeakMap();
const writers = new WeakMap();

/**
 * An element. `options`:
 *   t, label, placeholder, title   key of a string, or [key, values]: text and attributes
 *   write   (element) => void, run now and whenever the language changes
 *   text    text that is nobody's language (log text, names)
 *   class, on {event: handler}, dataset, and any other attribute (false, null: left out)
 */
export function el(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "t") setText(element, value);
    else if (name === "label" || name === "placeholder" || name === "title")
      setTranslated(element, `data-t-${name}`, value);
    else if (name === "write") setWriter(element, value);
    else if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else if (name === "on")
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A translated text: key or [key, values]. */
export function setText(element, what) {
  setTranslated(element, "data-t", what);
}

function setTranslated(element, attribute, what) {
  const [key, filled] = Array.isArray(what) ? what : [what, {}];
  element.setAttribute(attribute, key);
  if (!values.has(element)) values.set(element, {});
  values.get(element)[attribute] = filled;
  fill(element);
}

function setWriter(element, write) {
  element.setAttribute("data-write", "");
  writers.set(element, write);
  write(element);
}

function fill(element) {
  for (const [source, target] of FILLED) {
    const key = element.getAttribute(source);
    if (key === null) continue;
    const text = translate(key, values.get(element)?.[source]);
    if (target === "") element.textContent = text;
    else element.setAttribute(target, text);
  }
}

onLanguageChange(() => {
  const marked = FILLED.map(([source]) => `[${source}]`).join(",");
  for (const element of document.querySelectorAll(marked)) fill(element);
  for (const element of document.querySelectorAll("[data-write]")) writers.get(element)?.(element);
});

/** A text that comes in both languages from the server: {zh, en}. */
export function bilingual(element, texts) {
  setWriter(element, () => {
    element.textContent = texts[language()] ?? texts.en ?? texts.zh ?? "";
    element.lang = language() === "zh" ? "zh-CN" : "en";
  });
  return element;
}

/** Tells a screen reader, without moving anything. */
export function announce(key, filled) {
  document.getElementById("announcer").textContent = translate(key, filled);
}

/** A button. `what` is its string. */
export function button(what, onClick, options = {}) {
  return el("button", { type: "button", t: what, on: { click: onClick }, ...options });
}
