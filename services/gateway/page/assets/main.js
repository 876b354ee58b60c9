// Starts what the document holds.

import { startDiagnose } from "./diagnose.js";
import { startForecast } from "./forecast.js";
import { startLogs } from "./logs.js";
import { startModels } from "./models.js";
import { startPreferences } from "./preferences.js";
import { startReadiness } from "./readiness.js";
import { startTabs } from "./tabs.js";
import { refuseStrayDrops } from "./text_source.js";

const STARTERS = {
  diagnose: startDiagnose,
  logs: startLogs,
  forecast: startForecast,
  models: startModels,
};

for (const [name, start] of Object.entries(STARTERS)) {
  const panel = document.getElementById(`panel-${name}`);
  if (panel) start(panel.querySelector(".body"));
}
startPreferences();
refuseStrayDrops();
startTabs();
startReadiness();
document.documentElement.dataset.started = "";
