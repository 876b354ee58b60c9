// Forecast: a metric's history in, where it will be out.

import { ApiFailure, InputFailure, ask, firstResult } from "./api.js";
import { el } from "./dom.js";
import { exampleCsv } from "./examples.js";
import { readCsv } from "./csv_series.js";
import { ForecastView } from "./forecast_view.js";
import { failureView } from "./failure_view.js";
import { linearPrediction } from "./crossing.js";
import { RequestPanel, emptyState, uploadProgress } from "./request_panel.js";
import { settings } from "./settings.js";
import { onTab } from "./tabs.js";
import { TextSource } from "./text_source.js";
import { visibleText } from "./visible_text.js";

const PRESETS = ["12h", "fleet", "next"];
const QUANTILES = [0.1, 0.5, 0.9];

class Forecast {
  constructor(host) {
    this.view = null;
    this.source = new TextSource({
      id: "forecast-csv",
      label: "forecast.csv",
      placeholder: "forecast.csv.placeholder",
      limit: settings.largest_log_bytes,
      onSubmit: () => this.submit(),
    });
    const submit = (event) => {
      event.preventDefault();
      this.submit();
    };
    const form = el(
      "form",
      { class: "card ask", novalidate: true, on: { submit } },
      settings.has_query ? this.modeSwitch() : null,
      this.source.element,
      this.queryFields(),
      this.options(),
      el("div", { class: "row controls" },
        el("button", { type: "submit", class: "primary", t: "forecast.submit" }),
        el("span", { class: "hint", t: "forecast.note" })),
    );
    const answer = el("div", { class: "answer" });
    host.append(form, answer);
    this.panel = new RequestPanel(answer, () =>
      emptyState("forecast.empty", "forecast.empty.text", () => {
        this.setMode("csv");
        this.source.set(exampleCsv(), "example.csv");
        this.threshold.value = "90";
        this.submit();
      }),
    );
    this.setMode("csv");
  }

  modeSwitch() {
    const choice = (mode) => {
      const radio = el("input", { type: "radio", name: "forecast-mode", id: `forecast-mode-${mode}`, value: mode });
      radio.addEventListener("change", () => this.setMode(mode));
      return [radio, el("label", { for: `forecast-mode-${mode}`, t: `forecast.mode.${mode}` })];
    };
    this.modes = el(
      "fieldset",
      { class: "segments" },
      el("legend", { class: "hidden-text", t: "forecast.mode" }),
      choice("csv"),
      choice("query"),
    );
    return this.modes;
  }

  queryFields() {
    this.query = el("textarea", {
      id: "forecast-query",
      rows: 3,
      class: "mono",
      spellcheck: "false",
      placeholder: "forecast.query.placeholder",
    });
    this.prometheus = el(
      "select",
      { id: "forecast-prometheus" },
      settings.prometheus.map((name) => el("option", { value: name, text: name })),
    );
    this.queryPart = el(
      "div",
      { class: "source" },
      el("label", { for: "forecast-query", t: "forecast.query" }),
      this.query,
      settings.prometheus.length > 1
        ? el("div", { class: "row field" },
            el("label", { for: "forecast-prometheus", t: "forecast.prometheus" }), this.prometheus)
        : null,
    );
    return this.queryPart;
  }

  options() {
    this.preset = el(
      "select",
      { id: "forecast-preset" },
      PRESETS.map((preset) => el("option", { value: preset, t: `forecast.preset.${preset}` })),
    );
    this.step = el("input", { type: "number", id: "forecast-step", min: 1, step: "any", placeholder: "forecast.step.own" });
    this.threshold = el("input", { type: "number", id: "forecast-threshold", step: "any", placeholder: "forecast.threshold.none" });
    this.threshold.addEventListener("input", () => this.view?.setThreshold(this.thresholdValue()));
    const field = (id, what, control) =>
      el("div", { class: "field column" }, el("label", { for: id, t: what }), control);
    this.stepField = field("forecast-step", "forecast.step", this.step);
    return el(
      "div",
      { class: "row fields" },
      field("forecast-preset", "forecast.preset", this.preset),
      this.stepField,
      field("forecast-threshold", "forecast.threshold", this.threshold),
    );
  }

  setMode(mode) {
    this.mode = mode;
    const radio = this.modes?.querySelector(`[value="${mode}"]`);
    if (radio) radio.checked = true;
    this.source.element.hidden = mode !== "csv";
    this.queryPart.hidden = mode !== "query";
  }

  thresholdValue() {
    const value = this.threshold.valueAsNumber;
    return Number.isFinite(value) ? value : null;
  }

  submit() {
    this.view?.close();
    this.view = null;
    try {
      const work = this.mode === "csv" ? this.csvWork() : this.queryWork();
      this.panel.run(work);
    } catch (failure) {
      if (!(failure instanceof InputFailure)) throw failure;
      this.panel.fail(failure);
    }
  }

  stepSeconds() {
    if (this.step.value === "" && !this.step.validity.badInput) return null;
    const step = this.step.valueAsNumber;
    if (!(step > 0))
      throw new InputFailure({ what: "forecast.bad_step", expected: "forecast.bad_step.expected" });
    return step;
  }

  csvWork() {
    if (!this.source.text.trim())
      throw new InputFailure({ what: "forecast.no_csv", next: "forecast.no_csv.next" });
    const history = readCsv(this.source.text, this.stepSeconds());
    const body = {
      series: [history.values],
      step_seconds: history.stepSeconds,
      preset: this.preset.value,
      quantiles: QUANTILES,
    };
    return async ({ signal, progress }) => {
      const answer = await ask("/v1/forecast", { body, signal, onUpload: uploadProgress(progress) });
      return this.show(answer, history);
    };
  }

  queryWork() {
    const query = this.query.value.trim();
    if (!query) throw new InputFailure({ what: "forecast.no_query", next: "forecast.no_query.next" });
    const body = { query, preset: this.preset.value, quantiles: QUANTILES };
    if (this.prometheus.value) body.prometheus = this.prometheus.value;
    const step = this.stepSeconds();
    if (step) body.step_seconds = step;
    return async ({ signal, progress }) => {
      progress(null, "forecast.querying");
      const answer = await ask("/v1/forecast/query", { body, signal });
      if (!answer.results?.length) throw new ApiFailure("garbled", { status: 200 });
      return answer.results.length > 1 ? this.choice(answer) : this.showSeries(answer, 0);
    };
  }

  /** A query of several series: one at a time, chosen by its labels. */
  choice(answer) {
    const place = el("div");
    const show = (index) => {
      this.view?.close();
      try {
        place.replaceChildren(this.showSeries(answer, index));
      } catch (failure) {
        place.replaceChildren(failureView(failure));
      }
    };
    const select = el(
      "select",
      { id: "forecast-series", class: "mono" },
      answer.results.map(({ labels }, index) => el("option", { value: index, text: labelsText(labels) })),
    );
    select.addEventListener("change", () => show(Number(select.value)));
    show(0);
    return el(
      "div",
      {},
      el("div", { class: "row field series-choice" },
        el("label", { for: "forecast-series", t: ["forecast.series", { count: answer.results.length }] }),
        select),
      place,
    );
  }

  showSeries(answer, index) {
    const told = answer.results[index];
    const pairs = told.history ?? answer.history ?? [];
    const linear = told.predict_linear ?? answer.predict_linear;
    const history = {
      times: pairs.map(([time]) => time),
      values: pairs.map(([, value]) => finite(value)),
    };
    return this.show({ ...answer, results: [told], predict_linear: linear }, history);
  }

  show(answer, history) {
    const result = firstResult(answer);
    if (!result.median?.length || !history.times.length)
      throw new ApiFailure("garbled", { status: 200 });
    const end = history.times.at(-1);
    const times = result.median.map((_, index) => end + (index + 1) * answer.step_seconds);
    const spanSeconds = (times.at(-1) - end) / 2;
    const told = answer.predict_linear;
    this.view = new ForecastView(
      {
        history,
        times,
        median: result.median,
        lower: result.quantiles?.["0.1"] ?? null,
        upper: result.quantiles?.["0.9"] ?? null,
        linear: told?.length ? alongTimes(told, times) : linearPrediction(history, spanSeconds, times),
        linearSpanSeconds: told?.length ? null : spanSeconds,
        source: result.source,
        modelVersion: answer.model_version,
      },
      this.thresholdValue(),
    );
    return this.view.element;
  }
}

/** As PromQL writes it; what cannot be seen is written out. */
function labelsText(labels = {}) {
  const { __name__: name = "", ...others } = labels;
  const pairs = Object.entries(others).map(([label, value]) => `${label}="${visibleText(value)}"`);
  return `${name}{${pairs.join(", ")}}`;
}

function finite(value) {
  const plain = Number(value);
  return value === null || !Number.isFinite(plain) ? null : plain;
}

/** [[time, value], …] read at other times, between its points. */
function alongTimes(pairs, times) {
  return times.map((time) => {
    const next = pairs.findIndex(([at]) => at >= time);
    if (next < 0) return NaN;
    const [at, value] = pairs[next];
    if (at === time || next === 0) return value;
    const [before, from] = pairs[next - 1];
    return from + ((value - from) * (time - before)) / (at - before);
  });
}

export function startForecast(host) {
  const tab = new Forecast(host);
  onTab("forecast", () => tab.view?.redraw());
}
