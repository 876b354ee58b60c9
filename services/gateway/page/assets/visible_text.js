// Log text as it is: characters that have no shape of their own, or that turn others around, are
// written out. A log is anybody's text; it must not be able to show something else than it holds.

// Escape sequences of terminals; controls except the tab; soft hyphen; Arabic and Mongolian marks;
// zero-width space and bidi marks; line separators; bidi embeddings, overrides and isolates;
// word joiner …; byte order mark; interlinear marks; tag characters; lone surrogates.
const INVISIBLE =
  /\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/gu;

/** Appends `text` to `parent`, with what cannot be seen written as small boxed names. */
export function appendVisible(parent, text) {
  let start = 0;
  for (const match of text.matchAll(INVISIBLE)) {
    if (match.index > start) parent.append(text.slice(start, match.index));
    const mark = document.createElement("span");
    mark.className = "invisible";
    mark.textContent = nameOf(match[0]);
    mark.title = codes(match[0]);
    parent.append(mark);
    start = match.index + match[0].length;
  }
  if (start < text.length) parent.append(text.slice(start));
  return parent;
}

/** The same as plain text, for tickets: `U+202E` and so on in angle brackets. */
export function visibleText(text) {
  return text.replace(INVISIBLE, (found) => (found.startsWith("\x1b[") ? "" : `<${codes(found)}>`));
}

function nameOf(found) {
  const code = found.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return codes(found);
}

function codes(found) {
  if (found.startsWith("\x1b[")) return `ESC ${found.slice(1)}`;
  return `U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}
