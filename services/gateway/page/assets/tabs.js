// The tabs: one panel at a time, named by the address's hash, so that each can be linked to.

const shown = new Map();
let opened = null;

/** `open()` runs whenever the tab comes to the front, `close()` when it leaves. */
export function onTab(name, open, close = () => {}) {
  shown.set(name, { open, close });
}

function show(name) {
  if (name === opened) return;
  shown.get(opened)?.close();
  opened = name;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  shown.get(name)?.open();
}

export function startTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const names = tabs.map((tab) => tab.id.slice("tab-".length));
  if (!names.length) return;
  const fromAddress = () => {
    const asked = location.hash.slice(1);
    // "#content" is the skip link's: the tab stays.
    if (asked !== "content" || opened === null) show(names.includes(asked) ? asked : names[0]);
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      let next = step === undefined ? undefined : (index + step + tabs.length) % tabs.length;
      if (event.key === "Home") next = 0;
      if (event.key === "End") next = tabs.length - 1;
      if (event.key === " ") next = index;
      if (next === undefined) return;
      event.preventDefault();
      tabs[next].focus();
      location.hash = names[next];
    });
  });
  addEventListener("hashchange", fromAddress);
  fromAddress();
}
