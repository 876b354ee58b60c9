// Every sentence of the page in both languages: strings.json, the file that the template reads too.

const catalogue = await (await fetch(new URL("./strings.json", import.meta.url))).json();
const HTML_LANGUAGE = { en: "en", zh: "zh-CN" };
const listeners = new Set();

let current = document.documentElement.lang.startsWith("zh") ? "zh" : "en";

export function language() {
  return current;
}

/** The tag that Intl wants. */
export function locale() {
  return HTML_LANGUAGE[current];
}

/** The sentence of `key`, with {names} filled in from `values`. */
export function translate(key, values = {}) {
  const texts = catalogue[key];
  if (!texts) throw new Error(`no string ${key}`);
  return texts[current].replace(/\{(\w+)\}/g, (whole, name) =>
    name in values ? shown(values[name]) : whole,
  );
}

// A value may be a function: numbers and times are written anew in each language.
function shown(value) {
  return String(typeof value === "function" ? value() : value);
}

export function hasString(key) {
  return key in catalogue;
}

/** `listener()` is called after each change of the language. */
export function onLanguageChange(listener) {
  listeners.add(listener);
}

export function setLanguage(next) {
  current = next;
  document.documentElement.lang = HTML_LANGUAGE[next];
  for (const listener of listeners) listener();
}
