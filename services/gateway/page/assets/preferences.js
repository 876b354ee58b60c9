// Language and theme: switched at once, remembered in cookies so that the server's next document
// already has them (no flash of the other one).

import { language, onLanguageChange, setLanguage } from "./strings.js";
import { settings } from "./settings.js";

const YEAR_SECONDS = 31536000;
const themeListeners = new Set();

/** `listener()` is called when colours change. */
export function onThemeChange(listener) {
  themeListeners.add(listener);
}

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "auto") return matchMedia("(prefers-color-scheme: dark)").matches;
  return chosen === "dark";
}

function remember(name, value) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; Path=/; Max-Age=${YEAR_SECONDS}; SameSite=Strict${secure}`;
}

function tellThemeListeners() {
  for (const listener of themeListeners) listener();
}

export function startPreferences() {
  const languageSwitch = document.getElementById("language-switch");
  // The button's text is a word of the other language.
  const markLanguage = () => {
    languageSwitch.lang = language() === "zh" ? "en" : "zh-CN";
  };
  markLanguage();
  onLanguageChange(markLanguage);
  languageSwitch.addEventListener("click", () => {
    const next = language() === "zh" ? "en" : "zh";
    remember(settings.language_cookie, next);
    setLanguage(next);
  });
  const themeSwitch = document.getElementById("theme-switch");
  const markTheme = () => themeSwitch.setAttribute("aria-pressed", String(isDark()));
  markTheme();
  themeSwitch.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    remember(settings.theme_cookie, next);
    document.documentElement.dataset.theme = next;
    markTheme();
    tellThemeListeners();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    markTheme();
    tellThemeListeners();
  });
}
