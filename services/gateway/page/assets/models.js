// Models: what is served, how good it was found to be, the proof of its export, and how it does now.

import { ask } from "./api.js";
import { button, el, setText } from "./dom.js";
import { clock } from "./format.js";
import { modelCard } from "./model_card.js";
import { RequestPanel } from "./request_panel.js";
import { onTab } from "./tabs.js";

const INTERVAL_MILLISECONDS = 5000;

class Models {
  constructor(host) {
    this.timer = null;
    this.isOpen = false;
    this.cards = new Map();
    this.told = el("span", { class: "hint" });
    const answer = el("div", { class: "answer" });
    host.append(
      el("div", { class: "row spread" }, this.told, button("models.refresh", () => this.load())),
      answer,
    );
    this.panel = new RequestPanel(answer, () => el("div"));
    document.addEventListener("visibilitychange", () => this.schedule());
  }

  open() {
    this.isOpen = true;
    this.load();
  }

  close() {
    this.isOpen = false;
    clearTimeout(this.timer);
  }

  load() {
    clearTimeout(this.timer);
    this.panel.run(async ({ signal }) => {
      const models = await ask("/v1/models", { signal });
      this.list = el("div", { class: "models" });
      this.cards.clear();
      this.fill(models);
      this.schedule();
      return models.length ? this.list : el("div", { class: "state empty" },
        el("h2", { t: "models.none" }), el("p", { t: "models.none.text" }));
    });
  }

  /** The figures anew, in place: what is opened or focused stays. */
  async refresh() {
    try {
      this.fill(await ask("/v1/models"));
    } catch (failure) {
      setText(this.told, "models.stale");
      if (failure.kind === "unauthorized") return;
    }
    this.schedule();
  }

  schedule() {
    clearTimeout(this.timer);
    if (this.isOpen && !document.hidden && this.panel.host.dataset.state !== "failure")
      this.timer = setTimeout(() => this.refresh(), INTERVAL_MILLISECONDS);
  }

  fill(models) {
    const kept = new Set();
    for (const model of models) {
      const key = `${model.name} ${model.version}`;
      kept.add(key);
      let card = this.cards.get(key);
      if (!card) {
        card = modelCard(model);
        this.cards.set(key, card);
        this.list.append(card.element);
      }
      card.update(model);
    }
    for (const [key, card] of this.cards)
      if (!kept.has(key)) {
        card.element.remove();
        this.cards.delete(key);
      }
    const now = new Date();
    setText(this.told, ["models.updated", { time: () => clock(now) }]);
  }
}

export function startModels(host) {
  const tab = new Models(host);
  onTab("models", () => tab.open(), () => tab.close());
}
