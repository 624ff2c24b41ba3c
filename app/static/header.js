// The header's chips: light and dark, and the language, which the server reads from a cookie.
import { attach as attachPanel } from "./panel.js";

const COOKIE = "patina_language";

export const languageCookie = (code) => `${COOKIE}=${encodeURIComponent(code)}; path=/; max-age=31536000; SameSite=Lax`;

export const attach = (gradio) => {
  attachPanel(gradio);
  gradio.element.addEventListener("click", (event) => {
    if (event.target.closest("[data-looks]")) window.patina.toggleLooks();
  });
  gradio.element.addEventListener("change", (event) => {
    const choice = event.target.closest("[data-language]");
    if (!choice) return;
    document.cookie = languageCookie(choice.value);
    location.reload();
  });
};
