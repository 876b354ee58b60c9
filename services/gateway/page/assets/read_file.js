// A file to text: refused before it is read when it is too large, unpacked when it is gzip, decoded
// as UTF-8, UTF-16 (with its mark) or GB 18030.

import { InputFailure } from "./api.js";
import { bytes } from "./format.js";

export function tooLarge(size, limit) {
  return new InputFailure({
    what: "input.too_large",
    expected: ["input.at_most", { size: () => bytes(limit) }],
    got: ["input.size", { size: () => bytes(size) }],
    next: "input.too_large.next",
  });
}

/** The file's text. `onProgress(fraction)`. Throws InputFailure. */
export async function readFile(file, limit, onProgress) {
  const isPacked = /\.gz$/i.test(file.name);
  if (file.size > limit) throw tooLarge(file.size, limit);
  let taken = 0;
  const counted = new TransformStream({
    transform(chunk, controller) {
      taken += chunk.byteLength;
      onProgress(file.size ? taken / file.size : 1);
      controller.enqueue(chunk);
    },
  });
  let stream = file.stream().pipeThrough(counted);
  if (isPacked) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  const parts = [];
  let size = 0;
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.byteLength;
      // A packed file says nothing about its true size.
      if (size > limit) throw tooLarge(size, limit);
      parts.push(value);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    if (error instanceof InputFailure) throw error;
    throw new InputFailure({ what: "input.unreadable", where: ["input.file", { name: file.name }] });
  }
  return decode(new Uint8Array(await new Blob(parts).arrayBuffer()));
}

function decode(data) {
  if (data[0] === 0xff && data[1] === 0xfe) return new TextDecoder("utf-16le").decode(data);
  if (data[0] === 0xfe && data[1] === 0xff) return new TextDecoder("utf-16be").decode(data);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    // Not UTF-8: what Chinese systems write, if it is that without a fault.
  }
  try {
    return new TextDecoder("gb18030", { fatal: true }).decode(data);
  } catch {
    return new TextDecoder("utf-8").decode(data);
  }
}
