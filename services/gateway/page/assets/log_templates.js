// Lines that say the same with other figures, grouped for reading. Only for the eye: the server masks
// in its own way before it judges.

const RULES = [
  [/\b\d{4}[-/]\d{1,2}[-/]\d{1,2}[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?/g, "<time>"],
  [/\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}\d{1,2} \d{2}:\d{2}:\d{2}\b/g, "<time>"],
  [/\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?\b/g, "<time>"],
  [/\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b/g, "<id>"],
  [/\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b/g, "<mac>"],
  [/\b(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?\b(?!:)/g, "<pci>"],
  [/\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b/g, "<ip>"],
  [/\b0[xX][0-9a-fA-F]+\b/g, "<hex>"],
  [/\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b/g, "<hex>"],
  [/(?<![\w<.])[-+]?\d+(?:[.,]\d+)*/g, "<num>"],
  [/\d+/g, "<num>"],
];
const LONGEST_CHARACTERS = 2000;

export function templateOf(line) {
  let masked = line.slice(0, LONGEST_CHARACTERS);
  for (const [pattern, name] of RULES) masked = masked.replace(pattern, name);
  return masked.trim();
}

/**
 * Rows {line, text, score, isAbnormal, error} → groups {template, rows, highest, abnormal}.
 * The answer's own `template` is taken where it has one.
 */
export function groupByTemplate(rows) {
  const groups = new Map();
  for (const row of rows) {
    const template = row.template ?? templateOf(row.text);
    let group = groups.get(template);
    if (!group) {
      group = { template, rows: [], highest: -1, abnormal: 0 };
      groups.set(template, group);
    }
    group.rows.push(row);
    if (row.score > group.highest) group.highest = row.score;
    if (row.isAbnormal) group.abnormal += 1;
  }
  return [...groups.values()];
}
