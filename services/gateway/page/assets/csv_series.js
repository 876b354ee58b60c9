// A metric out of CSV: `timestamp,value` rows (or values alone) on an even grid of time.

import { InputFailure } from "./api.js";
import { number } from "./format.js";

const FEWEST_POINTS = 3;
const MOST_POINTS = 1000000;
const LONGEST_QUOTED_CHARACTERS = 80;
const EMPTY = new Set(["", "nan", "null", "none", "na", "n/a", "-"]);

/**
 * {times: epoch seconds, values: number or null (missing), stepSeconds}.
 * stepSeconds: given (of values without times, or to override), or null: the usual distance.
 * Throws InputFailure.
 */
export function readCsv(text, stepSeconds = null) {
  const points = [];
  let isTimed = null;
  let isHeaderSeen = false;
  text.split(/\r?\n/).forEach((line, index) => {
    if (!line.trim() || line.startsWith("#")) return;
    const cells = cellsOf(line);
    const point = cells.length > 1 ? timed(cells) : untimed(cells);
    if (point === null && !points.length && !isHeaderSeen) {
      isHeaderSeen = true;
      return;
    }
    isTimed ??= cells.length > 1;
    if (point === null || isTimed !== cells.length > 1) throw badRow(index, line);
    points.push(point);
  });
  if (points.filter(([, value]) => value !== null).length < FEWEST_POINTS)
    throw new InputFailure({
      what: "forecast.too_short",
      expected: ["forecast.points", { points: FEWEST_POINTS }],
      got: ["forecast.points", { points: number(points.length) }],
    });
  return isTimed ? onGrid(points, stepSeconds) : endingNow(points, stepSeconds ?? 300);
}

function cellsOf(line) {
  const separator = [",", "\t", ";"].find((one) => line.includes(one));
  return (separator ? line.split(separator) : [line]).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
}

function timed(cells) {
  const time = timeOf(cells[0]);
  const value = valueOf(cells[1]);
  return Number.isFinite(time) && value !== undefined ? [time, value] : null;
}

function untimed(cells) {
  const value = valueOf(cells[0]);
  return value === undefined ? null : [null, value];
}

/** A number, null for one that is missing, undefined for what is neither. */
function valueOf(cell) {
  if (EMPTY.has(cell.toLowerCase())) return null;
  const value = Number(cell);
  return Number.isFinite(value) ? value : undefined;
}

/** Epoch seconds of epoch seconds, milli-, micro- or nanoseconds, or of a date; NaN: none. */
function timeOf(cell) {
  const plain = Number(cell);
  if (cell !== "" && Number.isFinite(plain)) {
    const size = Math.abs(plain);
    if (size >= 1e17) return plain / 1e9;
    if (size >= 1e14) return plain / 1e6;
    if (size >= 1e11) return plain / 1e3;
    return plain;
  }
  // Without a zone the browser reads "2026-01-31 14:05" in the visitor's.
  return Date.parse(cell.replace(/^(\d{4})\/(\d{1,2})\/(\d{1,2})/, "$1-$2-$3").replace(/,(\d+)$/, ".$1")) / 1000;
}

function badRow(index, line) {
  return new InputFailure({
    what: "forecast.bad_row",
    where: ["log.line", { line: index + 1 }],
    expected: "forecast.bad_row.expected",
    got: ["input.quoted", { text: line.slice(0, LONGEST_QUOTED_CHARACTERS) }],
  });
}

function onGrid(points, givenStep) {
  points.sort((a, b) => a[0] - b[0]);
  const gaps = [];
  for (let i = 1; i < points.length; i += 1) {
    const gap = points[i][0] - points[i - 1][0];
    if (gap > 0) gaps.push(gap);
  }
  gaps.sort((a, b) => a - b);
  const step = givenStep ?? gaps[(gaps.length - 1) >> 1];
  if (!step) throw new InputFailure({ what: "forecast.one_time" });
  const start = points[0][0];
  const count = Math.round((points.at(-1)[0] - start) / step) + 1;
  if (count > MOST_POINTS)
    throw new InputFailure({
      what: "forecast.too_long",
      expected: ["forecast.points", { points: () => number(MOST_POINTS) }],
      got: ["forecast.points", { points: () => number(count) }],
      next: "forecast.too_long.next",
    });
  const values = new Array(count).fill(null);
  for (const [time, value] of points)
    if (value !== null) values[Math.round((time - start) / step)] = value;
  return { times: values.map((_, index) => start + index * step), values, stepSeconds: step };
}

function endingNow(points, step) {
  const end = Math.floor(Date.now() / 1000 / step) * step;
  const start = end - (points.length - 1) * step;
  return {
    times: points.map((_, index) => start + index * step),
    values: points.map(([, value]) => value),
    stepSeconds: step,
  };
}
