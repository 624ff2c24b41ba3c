// The style that is open lies over the page: the keyboard stays in it, Escape closes it, and then the card it was
// opened from has the focus again.
import { attach as attachPanel } from "../panel.js";

const REACHABLE = "a[href], button:not([disabled]), input:not([disabled]), summary, [tabindex='0']";

// Which of `count` things has the focus next, when Tab is pressed at `at` (-1: at none of them); null lets it go on.
export const nextInside = (at, count, backwards) => {
  if (count === 0) return null;
  if (backwards) return at <= 0 ? count - 1 : null;
  return at === count - 1 || at === -1 ? 0 : null;
};

export const attach = (gradio) => {
  attachPanel(gradio);
  const { element, watch } = gradio;
  let open = "";

  watch("value", () => {
    const dialog = element.querySelector("[data-dialog]");
    const now = dialog ? dialog.dataset.dialog : "";
    document.documentElement.classList.toggle("covered", Boolean(now));
    if (now === open) return;
    const before = open;
    open = now;
    if (dialog) dialog.focus({ preventScroll: true });
    else document.querySelector(`.style-card[data-id="${CSS.escape(before)}"]`)?.focus({ preventScroll: true });
  });

  element.addEventListener("keydown", (event) => {
    const dialog = element.querySelector("[data-dialog]");
    if (!dialog) return;
    if (event.key === "Escape") dialog.querySelector("[data-act=close]").click();
    if (event.key !== "Tab") return;
    const reachable = [...dialog.querySelectorAll(REACHABLE)].filter((node) => node.offsetParent !== null);
    const next = nextInside(reachable.indexOf(document.activeElement), reachable.length, event.shiftKey);
    if (next === null) return;
    event.preventDefault();
    reachable[next].focus();
  });
};
