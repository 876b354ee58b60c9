// A diagnosis as plain text for a ticket, in the page's language.

import { bytes, number, percent } from "./format.js";
import { language, translate } from "./strings.js";
import { visibleText } from "./visible_text.js";

const LONGEST_LINE_CHARACTERS = 500;

/**
 * result: of /v1/diagnose; log: LogDocument; modelVersion; at: Date
 */
export function ticketText(result, log, modelVersion, at) {
  const lines = [`[Presage] ${headline(result)}`, ""];
  const facts = {
    name: log.name ?? translate("input.pasted"),
    lines: number(log.count),
    size: bytes(new Blob([log.text]).size),
  };
  lines.push(translate("ticket.log", facts));
  lines.push(
    translate("ticket.made", {
      time: `${at.toISOString().slice(0, 16).replace("T", " ")} UTC`,
      version: modelVersion ?? "–",
    }),
  );
  for (const cause of result.causes) {
    const kind = translate(cause.root ? "diagnose.root" : "diagnose.also");
    lines.push("", `${kind}: ${cause.label} (${percent(cause.probability)})`);
    const action = cause.action?.[language()];
    if (action) lines.push(`  ${translate("diagnose.action")}: ${action}`);
    if (cause.evidence?.length) lines.push(`  ${translate("diagnose.evidence")}:`);
    for (const { line_number: line, text } of cause.evidence ?? [])
      lines.push(`    ${translate("log.line", { line })}: ${shortened(visibleText(text))}`);
  }
  return `${lines.join("\n")}\n`;
}

export function headline(result) {
  const root = result.causes.find((cause) => cause.root) ?? result.causes[0];
  if (root)
    return translate("diagnose.headline", { label: root.label, percent: percent(root.probability) });
  return translate(result.unknown ? "diagnose.unknown" : "diagnose.healthy");
}

function shortened(text) {
  return text.length > LONGEST_LINE_CHARACTERS ? `${text.slice(0, LONGEST_LINE_CHARACTERS)}…` : text;
}
