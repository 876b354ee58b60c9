// Numbers, sizes, times and hashes as people read them, in the page's language.

import { locale, translate } from "./strings.js";

export function number(value, digits = 0) {
  if (!Number.isFinite(value)) return "–";
  return value.toLocaleString(locale(), { maximumFractionDigits: digits });
}

/** A metric's value: as many digits as say something at its size. */
export function measure(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(3);
  return value.toLocaleString(locale(), { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
}

export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  return `${(share * 100).toFixed(share > 0.995 && share < 1 ? 2 : 1)}%`;
}

export function bytes(size) {
  const units = ["B", "KB", "MB", "GB"];
  let power = 0;
  while (size >= 1024 && power < units.length - 1) {
    size /= 1024;
    power += 1;
  }
  return `${number(size, power && size < 100 ? 1 : 0)} ${units[power]}`;
}

export function seconds(span) {
  if (span < 60) return translate("time.seconds", { seconds: number(span, span < 10 ? 1 : 0) });
  const minutes = Math.round(span / 60);
  if (minutes < 60) return translate("time.minutes", { minutes });
  const hours = Math.floor(minutes / 60);
  if (hours < 48)
    return minutes % 60
      ? translate("time.hours_minutes", { hours, minutes: minutes % 60 })
      : translate("time.hours", { hours });
  return translate("time.days", { days: number(hours / 24, 1) });
}

export function milliseconds(span) {
  if (!Number.isFinite(span)) return "–";
  return `${number(span, span < 10 ? 2 : span < 100 ? 1 : 0)} ms`;
}

/** Date and time in the visitor's zone, from epoch seconds. */
export function moment(epochSeconds) {
  const date = new Date(epochSeconds * 1000);
  return date.toLocaleString(locale(), {
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  });
}

export function clock(date) {
  return date.toLocaleTimeString(locale(), { hourCycle: "h23" });
}

/** `2026-01-31 14:05:00` in the visitor's zone: what plotly takes for a time on its axis. */
export function axisTime(epochSeconds) {
  const date = new Date(epochSeconds * 1000);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function timeZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}
