// Inlined into the page's head, before anything is drawn: light or dark, and where the modules are.
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
  const repaint = () => paint(preferred());

  window.patina = {
    // A module of app/static; the same one however often it is asked for.
    module: (name) => import(new URL(`patina/static/${name}`, document.baseURI).href),
    toggleLooks: () => {
      const next = document.documentElement.classList.contains("dark") ? "light" : "dark";
      try { localStorage.setItem(KEY, next); } catch { /* then it lasts for this page */ }
      paint(next);
    },
  };
  for (const name of ["page.js", "panel.js"]) window.patina.module(name);

  repaint();
  document.addEventListener("DOMContentLoaded", () => {
    repaint();
    // Gradio sets its own choice of looks while it mounts; ours is the user's.
    new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== (preferred() === "dark")) repaint();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
})();
