// Rows as tab-separated text, for spreadsheets and scripts.

// A cell that begins so would be run as a formula by a spreadsheet; log text is anybody's.
const FORMULA = /^[=+\-@]/;

function cell(value) {
  if (typeof value === "number") return String(value);
  const plain = String(value ?? "").replace(/[\t\r\n]+/g, " ");
  return FORMULA.test(plain) ? `'${plain}` : plain;
}

export function tsv(names, rows) {
  return [names, ...rows].map((row) => row.map(cell).join("\t")).join("\n") + "\n";
}

export function download(name, text, mediaType) {
  // With the mark, spreadsheets read UTF-8 as UTF-8.
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: `${mediaType};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
