// The header's chips: light and dark, the language (which the server reads from a cookie), the tab's title, and a
// notification when a run that this page saw in training is finished.
import { attach as attachPanel } from "./panel.js";

const COOKIE = "patina_language";
const ASKED = "patina-asked-notifications";

export const languageCookie = (code) => `${COOKIE}=${encodeURIComponent(code)}; path=/; max-age=31536000; SameSite=Lax`;

// Whether what finished last was in training before, and is not now; `before` and `alive` are names of runs.
export const hasEnded = (before, { alive, finished }) =>
  finished !== "" && before.split(" ").includes(finished) && !alive.split(" ").includes(finished);

export const attach = (gradio) => {
  attachPanel(gradio);
  let alive = "";

  const follow = () => {
    const news = gradio.element.querySelector("[data-title]");
    if (!news) return;
    const now = news.dataset;
    document.title = now.title;
    document.documentElement.lang = news.lang;
    if (hasEnded(alive, now) && document.hidden && globalThis.Notification?.permission === "granted") {
      new Notification(now.said, { icon: "patina/static/favicon.svg" });
    }
    alive = now.alive;
  };

  gradio.element.addEventListener("click", (event) => {
    if (event.target.closest("[data-looks]")) window.patina.toggleLooks();
  });
  // The settings have the choice, too.
  document.addEventListener("change", (event) => {
    const choice = event.target.closest("[data-language]");
    if (!choice) return;
    document.cookie = languageCookie(choice.value);
    location.reload();
  });
  // Asked once, and when there is something to wait for.
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-act=train], [data-act=samples-train]")) return;
    if (globalThis.Notification?.permission !== "default") return;
    try {
      if (localStorage.getItem(ASKED)) return;
      localStorage.setItem(ASKED, "yes");
    } catch { return; /* then one would be asked each time */ }
    Notification.requestPermission();
  });
  gradio.watch("value", follow);
  follow();
};
