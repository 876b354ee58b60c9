// One place of a tab where an answer appears, and everything that can be there instead: nothing yet,
// a request on its way, a failure, a gateway that is busy.

import { ApiFailure } from "./api.js";
import { announce, button, el, setText } from "./dom.js";
import { failureView } from "./failure_view.js";
import { number, seconds } from "./format.js";
import { askToken } from "./token.js";
import { appendVisible } from "./visible_text.js";

const AUTOMATIC_RETRIES = 3;
const DEFAULT_RETRY_SECONDS = 5;
const TICK_MILLISECONDS = 200;

export class RequestPanel {
  /** `host` is filled; `empty()` makes what stands there before the first question. */
  constructor(host, empty) {
    this.host = host;
    this.makeEmpty = empty;
    this.abort = null;
    this.timer = null;
    this.clear();
  }

  clear() {
    this.stop();
    this.fill("empty", this.makeEmpty());
  }

  /** Cancels what is on its way. */
  stop() {
    this.abort?.abort();
    this.abort = null;
    clearInterval(this.timer);
  }

  /** Shows a failure that no request made. */
  fail(failure) {
    this.stop();
    this.fill("failure", failureView(failure));
  }

  /**
   * Runs `work({signal, progress})` and shows the element it promises. `progress(fraction, what)`:
   * fraction of what is done, null while only time tells; `what` is a string's key or [key, values].
   */
  async run(work, retriesLeft = AUTOMATIC_RETRIES) {
    this.stop();
    const abort = new AbortController();
    this.abort = abort;
    const loading = this.loadingView(abort);
    this.fill("loading", loading.element);
    try {
      const shown = await work({ signal: abort.signal, progress: loading.progress });
      if (this.abort !== abort) return;
      this.stop();
      this.fill("result", shown);
      announce("state.done");
      // Below the fold nobody would see that it came.
      if (this.host.getBoundingClientRect().top > innerHeight / 2)
        this.host.scrollIntoView({ block: "start" });
    } catch (failure) {
      if (this.abort !== abort && !abort.signal.aborted) return;
      clearInterval(this.timer);
      this.showFailure(failure, work, retriesLeft, abort);
    }
  }

  showFailure(failure, work, retriesLeft, abort) {
    const again = () => this.run(work);
    if (failure instanceof ApiFailure && failure.kind === "cancelled") {
      if (this.abort === abort) this.clear();
      return;
    }
    this.abort = null;
    if (failure instanceof ApiFailure && failure.kind === "unauthorized") {
      this.fill("failure", failureView(failure));
      askToken(again);
    } else if (failure instanceof ApiFailure && failure.kind === "busy") {
      this.fill("busy", this.busyView(failure, work, retriesLeft));
    } else {
      const isOurs = failure instanceof ApiFailure;
      this.fill("failure", failureView(failure, isOurs ? again : null));
    }
  }

  fill(state, element) {
    this.host.dataset.state = state;
    this.host.setAttribute("aria-busy", String(state === "loading"));
    this.host.replaceChildren(element);
  }

  loadingView(abort) {
    const started = performance.now();
    const what = el("strong", { t: "state.sending" });
    const elapsed = el("span", { class: "elapsed" });
    const bar = el("progress", { max: 1, label: "state.progress" });
    const cancel = () => {
      abort.abort();
      if (this.abort === abort) this.clear();
    };
    clearInterval(this.timer);
    this.timer = setInterval(() => {
      elapsed.textContent = seconds((performance.now() - started) / 1000);
    }, TICK_MILLISECONDS);
    return {
      element: el(
        "div",
        { class: "state loading" },
        el("p", { class: "row spread", role: "status" }, what, elapsed),
        bar,
        el("div", { class: "row" }, button("state.cancel", cancel)),
      ),
      progress: (fraction, text) => {
        if (text) setText(what, text);
        if (fraction === null) bar.removeAttribute("value");
        else bar.value = fraction;
      },
    };
  }

  busyView(failure, work, retriesLeft) {
    const wait = Math.ceil(failure.retryAfterSeconds ?? DEFAULT_RETRY_SECONDS);
    const due = performance.now() + wait * 1000;
    const isAutomatic = retriesLeft > 0;
    const told = el("p");
    const why = failure.problem.detail ?? failure.problem.title;
    const go = () => this.run(work, isAutomatic ? retriesLeft - 1 : AUTOMATIC_RETRIES);
    const tick = () => {
      const left = Math.ceil((due - performance.now()) / 1000);
      if (left > 0) {
        setText(told, [isAutomatic ? "busy.automatic" : "busy.wait", { seconds: number(left) }]);
        return;
      }
      clearInterval(this.timer);
      if (isAutomatic) go();
      else setText(told, "busy.now");
    };
    clearInterval(this.timer);
    this.timer = setInterval(tick, TICK_MILLISECONDS);
    tick();
    return el(
      "div",
      { class: "state busy" },
      // Only the title is an alert: the seconds would be read out one by one.
      el("h2", { role: "alert", t: failure.status === 429 ? "busy.title" : "busy.unavailable" }),
      why ? appendVisible(el("p"), why) : null,
      told,
      el(
        "div",
        { class: "row" },
        button("busy.retry", go, { class: "primary" }),
        button("state.cancel", () => this.clear()),
      ),
    );
  }
}

/** The empty state: what will be here, and an example to try. */
export function emptyState(title, text, example) {
  return el(
    "div",
    { class: "state empty" },
    el("h2", { t: title }),
    el("p", { t: text }),
    el("div", { class: "row center" }, button("state.example", example, { class: "example" })),
  );
}

/** For `ask`: the upload's progress, then waiting for the models. */
export function uploadProgress(progress) {
  return (fraction) => {
    if (fraction < 1)
      progress(fraction, ["state.uploading", { percent: Math.round(fraction * 100) }]);
    else progress(null, "state.computing");
  };
}
