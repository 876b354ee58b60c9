// The chart: history, the 80% band, the median, predict_linear's line and the threshold, in the page's
// colours. plotly.js is fetched when the first chart is drawn.

import { axisTime, measure, moment } from "./format.js";
import { settings } from "./settings.js";
import { translate } from "./strings.js";

const MOST_DRAWN_POINTS = 4000;
// Of the history, so that the forecast is not a sliver at its end: this many horizons.
const HISTORY_HORIZONS = 4;
const NARROW_HISTORY_HORIZONS = 2;
const NARROW_PIXELS = 500;
let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = settings.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error(translate("forecast.no_chart")));
    };
    document.head.append(script);
  });
  return loading;
}

/**
 * Draws into `place`. forecast: {history: {times, values}, times, median, lower, upper, linear},
 * lower, upper and linear may be null; threshold: number or null; crossing: epoch seconds or null.
 */
export async function drawChart(place, forecast, threshold, crossing) {
  const library = await plotly();
  const colours = colourReader(place);
  const horizons = place.clientWidth < NARROW_PIXELS ? NARROW_HISTORY_HORIZONS : HISTORY_HORIZONS;
  const drawn = traces(forecast, threshold, crossing, colours, horizons);
  await library.react(place, drawn, layout(forecast, colours), {
    displayModeBar: false,
    displaylogo: false,
    responsive: true,
    doubleClick: "reset",
  });
}

export function eraseChart(place) {
  window.Plotly?.purge(place);
}

function colourReader(place) {
  // A custom property holds light-dark(…) as it is written; a colour property holds the colour.
  const probe = document.createElement("span");
  probe.hidden = true;
  place.after(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colours = Object.fromEntries(
    ["text", "muted", "line", "surface", "chart-history", "chart-median", "chart-band", "chart-linear", "chart-threshold"].map(
      (name) => [name, read(name)],
    ),
  );
  probe.remove();
  return colours;
}

function traces(forecast, threshold, crossing, colours, horizons) {
  const { history, times, median, lower, upper, linear } = forecast;
  const drawn = thinned(recent(history, times, horizons));
  const last = lastKnown(history);
  const ahead = [last.time, ...times].map(axisTime);
  // Every curve of the future begins where the past ends.
  const from = (values) => [last.value, ...values];
  const line = (name, x, y, more) => ({
    type: "scatter",
    mode: "lines",
    name: translate(name),
    x,
    y,
    hovertemplate: "%{text}",
    text: y.map((value) => (Number.isFinite(value) ? measure(value) : "")),
    ...more,
  });
  const made = [];
  if (lower && upper) {
    made.push(
      line("forecast.lower", ahead, from(lower), { line: { width: 0 }, showlegend: false }),
      line("forecast.band", ahead, from(upper), {
        legendrank: 2,
        line: { width: 0 },
        fill: "tonexty",
        fillcolor: colours["chart-band"],
      }),
    );
  }
  made.push(
    line("forecast.history", drawn.times.map(axisTime), drawn.values, {
      legendrank: 1,
      line: { color: colours["chart-history"], width: 1.5 },
      connectgaps: false,
    }),
  );
  if (linear)
    made.push(
      line("forecast.linear", ahead.slice(1), linear, {
        legendrank: 4,
        line: { color: colours["chart-linear"], width: 1.5, dash: "dash" },
      }),
    );
  made.push(
    line("forecast.median", ahead, from(median), { legendrank: 3, line: { color: colours["chart-median"], width: 2.5 } }),
  );
  if (threshold !== null)
    made.push(
      line("forecast.threshold", [axisTime(drawn.times[0]), ahead.at(-1)], [threshold, threshold], {
        legendrank: 5,
        line: { color: colours["chart-threshold"], width: 1.5, dash: "dot" },
        hoverinfo: "skip",
        hovertemplate: undefined,
      }),
    );
  if (crossing !== null && threshold !== null)
    made.push({
      type: "scatter",
      mode: "markers+text",
      name: translate("forecast.crossing"),
      x: [axisTime(crossing)],
      y: [threshold],
      text: [moment(crossing)],
      textposition: "top left",
      textfont: { color: colours["chart-threshold"], size: 13 },
      marker: { color: colours["chart-threshold"], size: 11, symbol: "x" },
      showlegend: false,
      hoverinfo: "skip",
    });
  return made;
}

function layout(forecast, colours) {
  const now = axisTime(lastKnown(forecast.history).time);
  const axis = {
    gridcolor: colours.line,
    zerolinecolor: colours.line,
    linecolor: colours.line,
    tickfont: { color: colours.muted, size: 12 },
    automargin: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colours.text, size: 13 },
    margin: { l: 48, r: 12, t: 8, b: 40 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colours.surface, bordercolor: colours.line, font: { color: colours.text } },
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font: { color: colours.text } },
    xaxis: {
      ...axis,
      type: "date",
      hoverformat: "%m-%d %H:%M",
      // Figures only: plotly writes names of months in English.
      tickformatstops: [
        { dtickrange: [null, 60000], value: "%H:%M:%S" },
        { dtickrange: [60000, 86400000], value: "%H:%M\n%m-%d" },
        { dtickrange: [86400000, "M1"], value: "%m-%d\n%Y" },
        { dtickrange: ["M1", null], value: "%Y-%m" },
      ],
    },
    yaxis: { ...axis, tickformat: "~s", rangemode: "normal" },
    shapes: [
      { type: "line", x0: now, x1: now, yref: "paper", y0: 0, y1: 1, line: { color: colours.muted, width: 1, dash: "dot" } },
    ],
    uirevision: "kept",
  };
}

export function lastKnown(history) {
  for (let i = history.values.length - 1; i >= 0; i -= 1)
    if (history.values[i] !== null) return { time: history.times[i], value: history.values[i] };
  return { time: history.times.at(-1), value: 0 };
}

function recent(history, times, horizons) {
  const span = (times.at(-1) - history.times.at(-1)) * horizons;
  const from = history.times.findIndex((time) => time >= history.times.at(-1) - span);
  const start = Math.max(0, Math.min(from, history.times.length - 2));
  return { times: history.times.slice(start), values: history.values.slice(start) };
}

/** Lowest and highest of each stretch: a spike stays a spike. */
function thinned({ times, values }) {
  if (times.length <= MOST_DRAWN_POINTS) return { times, values };
  const stretch = Math.ceil(times.length / (MOST_DRAWN_POINTS / 2));
  const kept = { times: [], values: [] };
  for (let start = 0; start < times.length; start += stretch) {
    let low = start;
    let high = start;
    for (let i = start; i < Math.min(start + stretch, times.length); i += 1) {
      if (values[i] === null) continue;
      if (values[low] === null || values[i] < values[low]) low = i;
      if (values[high] === null || values[i] > values[high]) high = i;
    }
    for (const i of low < high ? [low, high] : low > high ? [high, low] : [low]) {
      kept.times.push(times[i]);
      kept.values.push(values[i]);
    }
  }
  return kept;
}
