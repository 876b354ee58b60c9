// A log as lines, without a string for each of them: offsets into the one text.

const LONGEST_SHOWN_CHARACTERS = 1000;

export class LogDocument {
  constructor(text, name = null) {
    this.text = text;
    this.name = name;
    const starts = [0];
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
    // What follows the last line break is a line only if there is something.
    if (starts.length > 1 && starts.at(-1) === text.length) starts.pop();
    this.starts = Uint32Array.from(starts);
  }

  /** Lines; they are counted from 1, as in the server's evidence. */
  get count() {
    return this.starts.length;
  }

  line(number) {
    const start = this.starts[number - 1];
    const end = number < this.count ? this.starts[number] - 1 : this.text.length;
    const line = this.text.slice(start, end);
    return line.replace(/[\r\n]+$/, "");
  }

  /** What is shown of a line, and how many characters are not. */
  shown(number, longest = LONGEST_SHOWN_CHARACTERS) {
    const line = this.line(number);
    if (line.length <= longest) return { text: line, left: 0 };
    return { text: line.slice(0, longest), left: line.length - longest };
  }

  /** The number of the next line after `from` that holds `words`, round the end; 0: none. */
  find(words, from) {
    const wanted = new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
    for (const start of [from < this.count ? this.starts[from] : this.text.length, 0]) {
      wanted.lastIndex = start;
      const match = wanted.exec(this.text);
      if (match) return this.lineAt(match.index);
    }
    return 0;
  }

  /** The line that holds the character at `offset`. */
  lineAt(offset) {
    let low = 0;
    let high = this.count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= offset) low = middle;
      else high = middle - 1;
    }
    return low + 1;
  }
}
