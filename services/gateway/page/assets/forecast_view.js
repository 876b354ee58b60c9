// A forecast as people read it: sentences first, then the chart, then the figures.

import { button, el } from "./dom.js";
import { crossingTime } from "./crossing.js";
import { drawChart, eraseChart, lastKnown } from "./forecast_chart.js";
import { axisTime, measure, moment, seconds, timeZone } from "./format.js";
import { onThemeChange } from "./preferences.js";
import { onLanguageChange, translate } from "./strings.js";
import { download, tsv } from "./tsv.js";

const TABLE_ROWS = 8;
const COLUMNS = ["time", "q10", "median", "q90", "predict_linear"];
// The one on the page; colours and words change under it.
let current = null;
onThemeChange(() => current?.redraw());
onLanguageChange(() => current?.redraw());

export class ForecastView {
  /** forecast: see drawChart, with {source, modelVersion, linearSpanSeconds}; threshold or null */
  constructor(forecast, threshold) {
    this.forecast = forecast;
    this.threshold = threshold;
    this.now = lastKnown(forecast.history);
    this.chart = el("div", { class: "chart", role: "img", label: "forecast.chart" });
    this.crossings = el("div", { class: "crossings", "aria-live": "polite" });
    this.element = el(
      "div",
      { class: "forecast" },
      el("div", { class: "row spread verdict" },
        el("h2", { t: ["forecast.headline", this.headlineFacts()] }),
        button("forecast.export", () => this.export())),
      this.crossings,
      el("div", { class: "card chart-card" }, this.chart),
      this.table(),
      el("p", { class: "hint", t: ["forecast.footnote", {
        source: forecast.source ?? "–",
        version: forecast.modelVersion ?? "–",
        zone: timeZone(),
      }] }),
      forecast.linear && forecast.linearSpanSeconds
        ? el("p", { class: "hint", t: ["forecast.linear.note", { span: () => seconds(forecast.linearSpanSeconds) }] })
        : null,
    );
    current = this;
    this.setThreshold(threshold);
  }

  headlineFacts() {
    const { times, median, lower, upper } = this.forecast;
    const last = median.length - 1;
    return {
      now: () => measure(this.now.value),
      later: () => measure(median[last]),
      span: () => seconds(times[last] - this.now.time),
      range: () => (lower && upper ? `${measure(lower[last])} – ${measure(upper[last])}` : "–"),
    };
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    this.crossing = null;
    this.crossings.replaceChildren();
    if (threshold !== null) this.crossings.append(...this.crossingTexts(threshold));
    // The place must be in the document: plotly measures it.
    requestAnimationFrame(() => this.redraw());
  }

  crossingTexts(threshold) {
    const { times, median, lower, upper, linear } = this.forecast;
    const isRising = this.now.value < threshold;
    const at = (values) => (values ? crossingTime(this.now, times, values, threshold, isRising) : null);
    this.crossing = at(median);
    const span = () => seconds(times.at(-1) - this.now.time);
    const when = (time) => ({
      time: () => moment(time),
      wait: () => seconds(time - this.now.time),
      threshold: () => measure(threshold),
      span,
    });
    const way = isRising ? "rise" : "fall";
    const first =
      this.crossing === null
        ? el("p", { class: "crossing calm", t: [`forecast.${way}.never`, when(0)] })
        : el("p", { class: "crossing", t: [`forecast.${way}`, when(this.crossing)] });
    const earliest = at(isRising ? upper : lower);
    const latest = at(isRising ? lower : upper);
    const straight = at(linear);
    const items = [
      ["forecast.earliest", earliest],
      ["forecast.latest", latest],
      ["forecast.straight", straight],
    ].map(([key, time]) =>
      el("li", { t: time === null ? [`${key}.never`, { span }] : [key, when(time)] }),
    );
    return [first, el("ul", {}, linear ? items : items.slice(0, 2))];
  }

  async redraw() {
    if (current !== this || !this.chart.isConnected || !this.chart.offsetParent) return;
    try {
      await drawChart(this.chart, this.forecast, this.threshold, this.crossing);
    } catch (error) {
      console.error(error);
      this.chart.textContent = translate("forecast.no_chart");
    }
  }

  close() {
    eraseChart(this.chart);
    if (current === this) current = null;
  }

  rows() {
    const { times, median, lower, upper, linear } = this.forecast;
    return times.map((time, i) => [time, lower?.[i], median[i], upper?.[i], linear?.[i]]);
  }

  table() {
    const rows = this.rows();
    const step = Math.max(1, Math.ceil(rows.length / TABLE_ROWS));
    const chosen = rows.filter((_, index) => (index + 1) % step === 0 || index === rows.length - 1);
    const heads = ["forecast.when", "forecast.lower", "forecast.median", "forecast.upper", "forecast.linear"];
    const figure = (value) => el("td", { class: "figure", write: (cell) => { cell.textContent = measure(value); } });
    return el(
      "details",
      { class: "card" },
      el("summary", { t: "forecast.figures" }),
      el("div", { class: "table-frame", tabindex: 0, role: "region", label: "forecast.figures" },
        el("table", {},
          el("thead", {}, el("tr", {}, heads.map((head, index) =>
            el("th", { scope: "col", class: index ? "figure" : "", t: head })))),
          el("tbody", {}, chosen.map(([time, ...values]) =>
            el("tr", {},
              el("th", { scope: "row", t: ["forecast.row", {
                time: () => moment(time),
                wait: () => seconds(time - this.now.time),
              }] }),
              values.map(figure)))))),
    );
  }

  export() {
    const rows = this.rows().map(([time, ...values]) => [axisTime(time), ...values]);
    download("presage-forecast.tsv", tsv(COLUMNS, rows), "text/tab-separated-values");
  }
}
