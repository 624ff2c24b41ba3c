// What the page itself has to know: light or dark, and an address that shows the same after a reload.
// Gradio's components call these functions by name; they hold no state of the studio.
(() => {
  const KEY = "patina-looks";

  const paint = (looks) => {
    const dark = looks === "dark";
    document.documentElement.classList.toggle("dark", dark);
    if (document.body) document.body.classList.toggle("dark", dark);
  };
  const preferred = () => {
    let kept = null;
    try { kept = localStorage.getItem(KEY); } catch { /* private windows may refuse */ }
    return kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  };

  const named = new URL(location.href).searchParams.get("tab");
  const asked = ["train", "preview", "library"].includes(named) ? named : "train";
  let arrived = false;

  const patina = {
    repaint: () => paint(preferred()),
    toggleLooks: () => {
      const next = document.documentElement.classList.contains("dark") ? "light" : "dark";
      try { localStorage.setItem(KEY, next); } catch { /* then it lasts for this page */ }
      paint(next);
    },
    // Keeps what is shown in the query, e.g. ?tab=train&run=run-2026...; null removes a part.
    setAddress: (parts) => {
      const url = new URL(location.href);
      for (const [name, value] of Object.entries(parts)) {
        if (value) url.searchParams.set(name, value);
        else url.searchParams.delete(name);
      }
      if (url.href !== location.href) history.replaceState(history.state, "", url);
    },
    address: () => location.search,
    // The tab that is open now. Gradio opens its first tab by itself before the one in the address is opened, and
    // answers to both may come in either order; so until the address has had its way, every answer is about its tab.
    select: (name) => {
      if (!arrived && name !== asked) return asked;
      arrived = true;
      patina.setAddress({ tab: name });
      return name;
    },
    // Folded parts that the user opened or closed, by their data-keep.
    opened: new Map(),
    // What this page shows, for the server to compare with: app/panels.py.
    shown: () => {
      const panels = {};
      for (const panel of document.querySelectorAll("[data-panel]")) panels[panel.dataset.panel] = panel.dataset.version;
      return [JSON.stringify({ run: new URL(location.href).searchParams.get("run") || "", panels })];
    },
  };
  window.patina = patina;

  patina.repaint();
  document.addEventListener("DOMContentLoaded", () => {
    patina.repaint();
    // Gradio sets its own choice of looks while it mounts; ours is the user's.
    new MutationObserver(() => {
      const dark = preferred() === "dark";
      if (document.body.classList.contains("dark") !== dark) patina.repaint();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", patina.repaint);
})();
