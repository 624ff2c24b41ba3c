// What the page itself has to know: an address that shows the same after a reload, and which panels it shows.

// The query with some parts set, e.g. ?tab=train&run=run-2026...; an empty value removes a part.
export const withParts = (href, parts) => {
  const url = new URL(href);
  for (const [name, value] of Object.entries(parts)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url.href;
};

export const setAddress = (parts) => {
  const next = withParts(location.href, parts);
  if (next !== location.href) history.replaceState(history.state, "", next);
};

export const address = () => location.search;

// The tab that is open now. Gradio opens its first tab by itself before the one in the address is opened, and
// answers to both may come in either order; so until the address has had its way, every answer is about its tab.
// `tabs` are those of the tab bar; an address that names none of them opens the first.
export const tabChooser = (named, tabs) => {
  const asked = tabs.includes(named) ? named : tabs[0];
  let arrived = false;
  return (name) => {
    if (!arrived && name !== asked) return asked;
    arrived = true;
    return name;
  };
};

let choose = null;
export const select = (name, tabs) => {
  choose ??= tabChooser(new URL(location.href).searchParams.get("tab"), tabs);
  const open = choose(name);
  if (open === name) setAddress({ tab: name });
  return open;
};

// Folded parts that the user opened or closed, by their data-keep.
export const opened = new Map();

export const runShown = () => new URL(location.href).searchParams.get("run") || "";

// What this page shows, for the server to compare with: app/refresh.py.
export const shown = () => {
  const panels = {};
  for (const panel of document.querySelectorAll("[data-panel]")) panels[panel.dataset.panel] = panel.dataset.version;
  return [JSON.stringify({ run: runShown(), panels })];
};
