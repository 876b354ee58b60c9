// Asking the gateway: JSON there and back, with upload progress, cancelling, and every failure as
// one of a few kinds that the page knows how to show.

import { locale } from "./strings.js";
import { token } from "./token.js";

export class ApiFailure extends Error {
  /**
   * kind: "problem" (the gateway said what is wrong), "unauthorized" (401, or 403 with a token), "busy" (429 or 503 with
   *   Retry-After), "offline" (nobody answered), "garbled" (not what was agreed), "cancelled"
   * problem: the problem+json document, or {}
   */
  constructor(kind, { status = 0, problem = {}, retryAfterSeconds = null, requestId = null } = {}) {
    super(problem.title ?? kind);
    Object.assign(this, { kind, status, problem, retryAfterSeconds, requestId });
  }
}

/** What the page itself finds wrong with what was typed, shown like a problem of the server's. */
export class InputFailure extends Error {
  /** `parts`: {what, where, expected, got, next}, each a key of a string or [key, values]. */
  constructor(parts) {
    super("input");
    this.parts = parts;
  }
}

/**
 * The answer's JSON. `onUpload(fraction)` while the body is being sent; 1: all of it is there.
 * Throws ApiFailure.
 */
export function ask(path, { body, signal, onUpload = () => {}, method } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method ?? (body === undefined ? "GET" : "POST"), path);
    request.setRequestHeader("Accept", "application/json, application/problem+json");
    request.setRequestHeader("Accept-Language", locale());
    if (token()) request.setRequestHeader("Authorization", `Bearer ${token()}`);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onUpload(event.loaded / event.total);
    });
    request.upload.addEventListener("load", () => onUpload(1));
    request.addEventListener("load", () => {
      try {
        resolve(read(request));
      } catch (failure) {
        reject(failure);
      }
    });
    request.addEventListener("error", () => reject(new ApiFailure("offline")));
    request.addEventListener("timeout", () => reject(new ApiFailure("offline")));
    request.addEventListener("abort", () => reject(new ApiFailure("cancelled")));
    if (signal) {
      if (signal.aborted) return reject(new ApiFailure("cancelled"));
      signal.addEventListener("abort", () => request.abort(), { once: true });
    }
    if (body === undefined) return request.send();
    request.setRequestHeader("Content-Type", "application/json");
    return request.send(JSON.stringify(body));
  });
}

function read(request) {
  let document = null;
  try {
    document = JSON.parse(request.responseText);
  } catch {
    // A proxy's HTML, or nothing: told apart by the status below.
  }
  const { status } = request;
  if (status >= 200 && status < 300) {
    if (document === null) throw new ApiFailure("garbled", { status });
    return document;
  }
  const told = {
    status,
    problem: document !== null && typeof document === "object" ? document : {},
    retryAfterSeconds: retryAfter(request.getResponseHeader("Retry-After")),
    requestId: request.getResponseHeader("X-Request-Id"),
  };
  // A token for other APIs is as good as none.
  if (status === 401 || (status === 403 && token())) throw new ApiFailure("unauthorized", told);
  if (status === 429 || (status === 503 && told.retryAfterSeconds !== null))
    throw new ApiFailure("busy", told);
  if (document === null) throw new ApiFailure("garbled", told);
  throw new ApiFailure("problem", told);
}

/** Seconds; the header is a number of them or a date. */
function retryAfter(header) {
  if (header === null) return null;
  const plain = Number(header);
  const seconds = Number.isFinite(plain) ? plain : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 600) : null;
}

/** `results[0]` of an answer; the reason when the gateway skipped it. Throws ApiFailure. */
export function firstResult(answer) {
  const result = answer?.results?.[0];
  if (!result) throw new ApiFailure("garbled", { status: 200 });
  if (result.error) throw new ApiFailure("problem", { status: 200, problem: problemOf(result.error) });
  return result;
}

function problemOf(error) {
  return typeof error === "object" ? error : { title: String(error) };
}
