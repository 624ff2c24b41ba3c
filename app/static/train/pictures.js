// The wipes of a finished run: a line that is dragged between before and after, and which of the prompts is in sight.
import { attach as attachPanel } from "../panel.js";

// A choice outlives renderings; what is no longer there falls back to the first.
export const inSight = (chosen, count) => (chosen >= 0 && chosen < count ? chosen : 0);

export const attach = (gradio) => {
  const { element } = gradio;
  let chosen = 0;
  attachPanel(gradio);

  const show = () => {
    const figures = element.querySelectorAll(".wipe");
    const now = inSight(chosen, figures.length);
    figures.forEach((figure, index) => { figure.hidden = index !== now; });
    element.querySelectorAll("[data-show]").forEach((button, index) => button.setAttribute("aria-pressed", String(index === now)));
    for (const range of element.querySelectorAll("[data-wipe]")) move(range);
  };
  const move = (range) => range.parentElement.style.setProperty("--wipe", `${range.value}%`);

  element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    chosen = Number(button.dataset.show);
    show();
  });
  element.addEventListener("input", (event) => {
    const range = event.target.closest("[data-wipe]");
    if (range) move(range);
  });
  gradio.watch("value", show);
};
