// The link past the page's upper part, for who goes by keyboard: to what the open tab is there for.
import { attach as attachPanel } from "./panel.js";

export const mainAction = (root) =>
  [...root.querySelectorAll("[data-main], button.primary")].find((node) => node.offsetParent && !node.disabled) ?? null;

export const attach = (gradio) => {
  attachPanel(gradio);
  gradio.element.addEventListener("click", (event) => {
    if (event.target.closest("[data-skip]")) mainAction(document)?.focus();
  });
};
