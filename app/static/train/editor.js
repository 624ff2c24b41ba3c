// One image of a draft, large: its caption, the part of it that is used, and the way to the next with a key.
import { make, setShown, setText } from "../dom.js";
import { attach as attachPanel } from "../panel.js";
import { fill } from "../text.js";

// A drag from one point to another as [left, top, right, bottom] in shares of a box; null when it is a mere click.
export const partOf = (box, from, to) => {
  const share = (value, start, length) => Math.min(1, Math.max(0, (value - start) / length));
  const across = [share(from.x, box.left, box.width), share(to.x, box.left, box.width)].sort((a, b) => a - b);
  const down = [share(from.y, box.top, box.height), share(to.y, box.top, box.height)].sort((a, b) => a - b);
  if (across[1] - across[0] < 0.02 || down[1] - down[0] < 0.02) return null;
  return [across[0], down[0], across[1], down[1]];
};

// A crop of the same size around a point, both in shares of the picture, moved inside where it would leave it.
export const cropAround = ([left, top, right, bottom], { x, y }) => {
  const place = (at, size) => Math.min(1 - size, Math.max(0, at - size / 2));
  const [width, height] = [right - left, bottom - top];
  const [across, down] = [place(x, width), place(y, height)];
  return [across, down, across + width, down + height];
};
const middleOf = ([left, top, right, bottom]) => ({ x: (left + right) / 2, y: (top + bottom) / 2 });
const boxOf = ([left, top, right, bottom]) =>
  `left:${100 * left}%;top:${100 * top}%;width:${100 * (right - left)}%;height:${100 * (bottom - top)}%`;

// Which image is next, `by` places on; the last leads to the first.
export const placeAfter = (at, by, count) => (count ? (((at + by) % count) + count) % count : -1);

const ARROWS = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] };

export const attach = (gradio) => {
  const enter = attachPanel(gradio);
  const { element, trigger, watch } = gradio;
  const parts = build();
  let id = "";
  let shownId = "";
  let part = null;
  let cut = null;
  let moving = false;

  const items = () => [...element.querySelectorAll("[data-editable]")];
  const at = () => items().findIndex((item) => item.dataset.editable === id);
  const select = (next) => {
    part = next;
    setShown(parts.part, Boolean(part));
    parts.crop.disabled = !part;
    if (part) parts.part.style.cssText = boxOf(part);
    showCut();
  };
  // What the shape of the picture in training leaves of it, with the dot that moves it.
  const showCut = () => {
    for (const each of [parts.cut, parts.focus]) setShown(each, Boolean(cut && !part));
    setShown(parts.focusHelp, Boolean(cut));
    if (!cut) return;
    parts.cut.style.cssText = boxOf(cut);
    const { x, y } = middleOf(cut);
    parts.focus.style.cssText = `left:${100 * x}%;top:${100 * y}%`;
  };
  const keepFocus = () => {
    const { x, y } = middleOf(cut);
    trigger("click", { act: "focus", image: id, at: [x, y] });
  };
  // The caption's own field, in the card below, tells the server.
  const field = () => document.querySelector(`[data-set=caption][data-image="${CSS.escape(id)}"]`);
  const keep = () => {
    const own = id && field();
    if (!own || parts.caption.value === own.value) return;
    own.value = parts.caption.value;
    own.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const keepTimes = () => {
    const before = items()[at()]?.dataset.times;
    if (!before || parts.times.value === before) return;
    if (parts.times.checkValidity()) enter({ set: "repeats-of", image: id, value: parts.times.value });
    else parts.times.value = before;
  };
  const draw = () => {
    const list = items();
    const place = at();
    if (place < 0) {
      parts.dialog.close();
      return;
    }
    const { words, most } = element.querySelector("[data-words]").dataset;
    const said = JSON.parse(words);
    const { name, large, crop } = list[place].dataset;
    parts.dialog.setAttribute("aria-label", fill(said.edit, { name }));
    setText(parts.name, name);
    setText(parts.place, fill(said.place, { number: place + 1, count: list.length }));
    parts.picture.alt = name;
    parts.times.max = most;
    if (parts.picture.getAttribute("src") !== large) {
      parts.picture.src = large;
      select(null);
    }
    if (!moving) cut = crop ? crop.split(",").map(Number) : null;
    showCut();
    parts.focus.setAttribute("aria-label", fill(said.focus, { name }));
    setText(parts.focusHelp, said.focus_help);
    // What is being written stays, but for another image.
    if (shownId !== id || document.activeElement !== parts.caption) parts.caption.value = field()?.value ?? "";
    if (shownId !== id || document.activeElement !== parts.times) parts.times.value = list[place].dataset.times;
    shownId = id;
    setText(parts.label, said.caption);
    setText(parts.timesLabel, said.times);
    setText(parts.keys, said.keys);
    setText(parts.help, said.crop_help);
    for (const key of ["crop", "whole", "remove", "before", "next", "close"]) setText(parts[key], said[key]);
    setShown(parts.whole, list[place].hasAttribute("data-part"));
  };
  const go = (by) => {
    keep();
    keepTimes();
    const list = items();
    id = list[placeAfter(at(), by, list.length)]?.dataset.editable ?? "";
    draw();
    parts.caption.focus();
  };

  element.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-edit]");
    if (!opener) return;
    id = opener.closest("[data-editable]").dataset.editable;
    shownId = "";
    draw();
    parts.dialog.showModal();
    parts.caption.focus();
  });
  parts.before.addEventListener("click", () => go(-1));
  parts.next.addEventListener("click", () => go(1));
  parts.caption.addEventListener("change", keep);
  parts.close.addEventListener("click", () => parts.dialog.close());
  parts.dialog.addEventListener("close", () => {
    keep();
    keepTimes();
    items()[at()]?.querySelector("[data-edit]").focus();
    id = "";
  });
  parts.times.addEventListener("change", keepTimes);
  parts.crop.addEventListener("click", () => {
    if (part) trigger("click", { act: "crop", image: id, box: part });
  });
  parts.whole.addEventListener("click", () => trigger("click", { act: "uncrop", image: id }));
  parts.remove.addEventListener("click", () => {
    const gone = id;
    const list = items();
    id = list.length > 1 ? list[placeAfter(at(), 1, list.length)].dataset.editable : "";
    trigger("click", { act: "remove", image: gone });
    if (id) draw();
    else parts.dialog.close();
  });
  parts.focus.addEventListener("keydown", (event) => {
    const [across, down] = ARROWS[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    event.stopPropagation();
    const { x, y } = middleOf(cut);
    cut = cropAround(cut, { x: x + across, y: y + down });
    moving = true;
    showCut();
  });
  parts.focus.addEventListener("keyup", (event) => {
    if (!ARROWS[event.key]) return;
    moving = false;
    keepFocus();
  });
  parts.dialog.addEventListener("keydown", (event) => {
    const writing = event.target === parts.caption || event.target === parts.times;
    const by = { PageUp: -1, PageDown: 1, ...(writing ? {} : { ArrowLeft: -1, ArrowRight: 1 }) }[event.key];
    if (!by) return;
    event.preventDefault();
    go(by);
  });

  let from = null;
  const point = (event) => ({ x: event.clientX, y: event.clientY });
  parts.stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    moving = event.target === parts.focus;
    if (moving) parts.focus.focus();
    else from = point(event);
    parts.stage.setPointerCapture(event.pointerId);
  });
  parts.stage.addEventListener("pointermove", (event) => {
    if (moving && event.buttons) {
      const box = parts.picture.getBoundingClientRect();
      cut = cropAround(cut, { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
      showCut();
    }
    if (from) select(partOf(parts.picture.getBoundingClientRect(), from, point(event)));
  });
  parts.stage.addEventListener("pointerup", () => {
    from = null;
    if (!moving) return;
    moving = false;
    keepFocus();
  });
  watch("value", () => { if (parts.dialog.open) draw(); });
};

const build = () => {
  const button = (kind) => make("button", { type: "button", class: kind });
  const parts = {
    picture: make("img", { draggable: "false" }),
    part: make("i", { class: "editor-part", hidden: true }),
    cut: make("i", { class: "editor-part", hidden: true }),
    focus: make("button", { type: "button", class: "editor-focus", hidden: true }),
    focusHelp: make("p", { class: "editor-help", hidden: true }),
    name: make("h2"),
    place: make("span", { class: "editor-place", role: "status" }),
    label: make("span"),
    caption: make("textarea", { rows: 5, maxlength: 2000, class: "editor-caption" }),
    timesLabel: make("span"),
    times: make("input", { type: "number", min: 1, step: 1, required: true, class: "editor-times" }),
    keys: make("p", { class: "editor-help" }),
    help: make("p", { class: "editor-help" }),
    before: button("plain"), next: button("plain"), crop: button("plain"), whole: button("plain"),
    remove: button("plain"), close: button("plain"),
  };
  parts.stage = make("div", { class: "editor-stage" }, parts.picture, parts.cut, parts.part, parts.focus);
  const side = make("div", { class: "editor-side" },
    make("header", {}, parts.name, parts.place),
    make("label", {}, parts.label, parts.caption), parts.keys,
    make("div", { class: "editor-line" }, parts.before, parts.next),
    make("label", { class: "editor-count" }, parts.timesLabel, parts.times),
    parts.focusHelp, parts.help, make("div", { class: "editor-line" }, parts.crop, parts.whole),
    make("div", { class: "editor-line end" }, parts.remove, parts.close));
  parts.dialog = make("dialog", { class: "editor" }, make("div", { class: "editor-show" }, parts.stage), side);
  document.querySelector(".gradio-container").append(parts.dialog);
  return parts;
};
