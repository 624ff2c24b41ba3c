// The picture, its wipe against the base, its strength and the filmstrip. The panel's state says which frames exist;
// which of them is looked at is decided here, so moving the strength over made frames asks nobody.
import { make, setShown, setText, stateOf } from "../dom.js";
import { setAddress } from "../page.js";
import { fill } from "../text.js";
import { mix, onMix, setMix, withStrength } from "./mix.js";
import { looking, shown, stripOf, wanted } from "./strength.js";

export const attach = ({ element, trigger, watch }) => {
  // Beside the panel and not in it, because its HTML is replaced.
  const parts = build(trigger);
  element.after(parts.root);
  let state = {};
  let chosen = 0;
  const clock = { job: "", since: 0 };

  const draw = () => {
    const { words, pictures = [] } = state;
    if (!words) return;
    chosen = Math.max(0, Math.min(chosen, pictures.length - 1));
    const at = wanted(state, mix());
    const picture = pictures[chosen];
    const look = looking(picture, at.strengths);
    drawStage(parts, state, look, picture, at);
    drawBusy(parts, state, look, clock);
    drawStrength(parts, state);
    drawStrip(parts, state, picture, at);
    drawOthers(parts, words, pictures, chosen, (index) => { chosen = index; draw(); });
    drawUnder(parts, state, look, picture);
    if (state.job) setAddress({ job: state.job });
  };

  onMix(draw);
  watch("value", () => { state = stateOf(element); draw(); });
  setInterval(() => { if (state.busy) drawBusy(parts, state, null, clock); }, 500);
  state = stateOf(element);
  draw();
  trigger("click", { act: "opened", job: new URL(location.href).searchParams.get("job") || "" });
};

const build = (trigger) => {
  const parts = {
    nothing: make("p", { class: "viewer-nothing" }),
    after: make("img", { class: "viewer-after", draggable: "false", decoding: "async", alt: "" }),
    before: make("img", { class: "viewer-before", draggable: "false", decoding: "async", alt: "" }),
    line: make("span", { class: "viewer-line", "aria-hidden": "true" }, make("span", { class: "viewer-knob" })),
    wipe: make("input", { type: "range", min: 0, max: 100, step: 1, value: 35, class: "viewer-wipe" }),
    left: make("span", { class: "viewer-tag viewer-tag-left", "aria-hidden": "true" }),
    right: make("span", { class: "viewer-tag viewer-tag-right" }),
    veil: make("span", { class: "viewer-veil", hidden: true, "aria-hidden": "true" }),
    larger: make("button", { type: "button", class: "viewer-larger" }),
    close: make("button", { type: "button", class: "viewer-close" }),
    name: make("label", { class: "viewer-strength-name", for: "viewer-strength" }),
    slider: make("input", { type: "range", step: 0.05, class: "viewer-strength", id: "viewer-strength" }),
    number: make("output", { class: "viewer-strength-number", for: "viewer-strength" }),
    marks: make("div", { class: "viewer-marks", "aria-hidden": "true" }),
    film: make("ol", { class: "viewer-film" }),
    bar: make("progress", { class: "viewer-progress", max: 1 }),
    status: make("p", { class: "viewer-status", role: "status", "aria-live": "polite" }),
    stop: make("button", { type: "button", class: "plain", onclick: () => trigger("click", { act: "stop" }) }),
    offer: make("button", { type: "button", class: "plain viewer-offer", onclick: () => trigger("click", { act: "film" }) }),
    caption: make("p", { class: "viewer-caption" }),
    save: make("a", { class: "viewer-save", download: "" }),
    others: make("div", { class: "viewer-others", role: "group" }),
  };
  parts.stage = make("div", { class: "viewer-stage" }, parts.after, parts.before, parts.line, parts.left, parts.right, parts.wipe, parts.veil, parts.larger);
  parts.top = make("div", { class: "viewer-top" }, parts.nothing, parts.stage);
  parts.dialog = make("dialog", { class: "viewer-dialog" }, parts.close);
  parts.strength = make("div", { class: "viewer-strength-row" },
    parts.name, make("div", { class: "viewer-strength-track" }, parts.slider, parts.marks), parts.number);
  parts.root = make("div", { class: "viewer" }, parts.top, parts.strength, parts.film, parts.bar,
    make("div", { class: "viewer-says" }, parts.status, parts.stop, parts.offer),
    make("div", { class: "viewer-under" }, parts.caption, parts.save), parts.others, parts.dialog);
  attachWipe(parts);
  attachLarger(parts);
  attachStrength(parts);
  return parts;
};

const attachWipe = ({ wipe, stage }) => {
  const set = () => stage.style.setProperty("--wipe", `${wipe.value}%`);
  wipe.addEventListener("input", () => {
    set();
    if (wipe.dataset.says) wipe.setAttribute("aria-valuetext", fill(wipe.dataset.says, { percent: wipe.value }));
  });
  set();
};

// The same picture over the whole window, with its wipe; Escape and the button lead back.
const attachLarger = ({ larger, close, dialog, stage, top }) => {
  larger.addEventListener("click", () => {
    dialog.prepend(stage);
    dialog.showModal();
  });
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    top.append(stage);
    larger.focus();
  });
};

const attachStrength = ({ slider }) => {
  const move = (settled) => {
    const current = mix();
    if (current.rows.length) setMix(withStrength(current, current.focus, Number(slider.value)), { settled });
  };
  slider.addEventListener("input", () => move(false));
  slider.addEventListener("change", () => move(true));
};

const source = (image, url) => {
  if (image.getAttribute("src") !== url) image.setAttribute("src", url);
};

const drawStage = (parts, state, look, picture, at) => {
  const { words } = state;
  setText(parts.nothing, words.nothing);
  setText(parts.left, words.base);
  setText(parts.larger, words.larger);
  setText(parts.close, words.close);
  parts.wipe.setAttribute("aria-label", words.wipe);
  parts.wipe.dataset.says = words.wipe_value;
  // The picture before stays, dimmed, until there is one of what was asked for.
  const old = !look.url && Boolean(state.busy) && parts.after.hasAttribute("src");
  setShown(parts.nothing, !look.url && !old);
  setShown(parts.stage, Boolean(look.url) || old);
  const compare = Boolean(look.strengths && look.base && look.base !== look.url);
  for (const node of [parts.before, parts.line, parts.left, parts.wipe]) setShown(node, compare);
  parts.stage.classList.toggle("old", old || (Boolean(state.busy) && Boolean(look.url) && !look.exact));
  if (!look.url) {
    setText(parts.right, old ? words.before : "");
    setShown(parts.right, old);
    return;
  }
  source(parts.after, look.url);
  if (compare) source(parts.before, look.base);
  const said = strengthsSaid(state, look.strengths);
  parts.after.alt = fill(words.alt, { prompt: state.prompt || "", strength: said });
  setShown(parts.right, true);
  const tag = tagOf(state, look.strengths, said);
  const missing = look.strengths && !look.exact && !state.busy;
  setText(parts.right, missing ? `${tag} (${fill(words.nearest, { strength: shown(at.strengths[at.focus]) })})` : tag);
};

const strengthsSaid = (state, strengths) => (!strengths || strengths.length === 0 ? "0"
  : strengths.length === 1 ? shown(strengths[0])
    : state.styles.map((use, index) => `${use.name} ${shown(strengths[index])}`).join(", "));

// The strength, and in which state the style was, unless that is its finished file.
const tagOf = (state, strengths, said) => {
  const { words, styles = [] } = state;
  if (!strengths || styles.length === 0) return words.base;
  const made = [...new Set(styles.map((use) => use.made).filter(Boolean))].join(", ");
  return made ? fill(words.at_strength_made, { strength: said, made }) : fill(words.at_strength, { strength: said });
};

// Called with a look when the state changed, and without one as time passes.
const drawBusy = (parts, state, look, clock) => {
  const { words, busy } = state;
  if (busy && clock.job !== busy) [clock.job, clock.since] = [busy, performance.now()];
  if (!busy) clock.job = "";
  const seconds = Math.floor((performance.now() - clock.since) / 1000);
  const expected = state.expected && Math.round(state.expected);
  const text = state.waits ? words.waiting : expected >= 1 ? words.seconds_of : words.seconds;
  if (busy) setText(parts.veil, fill(text, { seconds, expected }));
  setShown(parts.veil, Boolean(busy) && parts.stage.classList.contains("old"));
  if (!look) return;
  parts.bar.setAttribute("aria-label", words.progress);
  setShown(parts.bar, Boolean(busy));
  if (state.total) parts.bar.value = state.done / state.total;
  else parts.bar.removeAttribute("value");
  setText(parts.status, state.message || "");
  parts.status.classList.toggle("problem", Boolean(state.failed));
  setText(parts.stop, words.stop);
  setShown(parts.stop, Boolean(busy));
  setText(parts.offer, state.film_offer || "");
  setShown(parts.offer, Boolean(state.film_offer));
};

const drawStrength = (parts, state) => {
  const { words, lowest, highest } = state;
  const row = mix().rows[mix().focus];
  setShown(parts.strength, Boolean(row));
  if (!row) return;
  setText(parts.name, row.name);
  parts.slider.setAttribute("aria-label", fill(words.strength_of, { name: row.name }));
  parts.slider.title = words.strength_help;
  parts.slider.min = lowest;
  parts.slider.max = highest;
  parts.slider.value = row.strength;
  const place = (value) => `${((value - lowest) / (highest - lowest)) * 100}%`;
  parts.slider.style.setProperty("--at", place(row.strength));
  setText(parts.number, shown(row.strength));
  if (parts.marks.dataset.words !== words.mark_base) {
    parts.marks.dataset.words = words.mark_base;
    parts.marks.replaceChildren(make("span", { style: `left:${place(0)}` }, words.mark_base), make("span", { style: `left:${place(1)}` }, words.mark_trained));
  }
};

const drawStrip = (parts, state, picture, at) => {
  const { words, film = [] } = state;
  const places = picture && film.length ? stripOf(film, picture.frames, at.strengths, at.focus) : [];
  parts.film.setAttribute("aria-label", words.film);
  setShown(parts.film, places.length > 0);
  const shape = String(places.map((place) => place.strength));
  if (parts.film.dataset.shape !== shape) {
    parts.film.dataset.shape = shape;
    parts.film.replaceChildren(...places.map((place) => make("li", {}, make("button", {
      type: "button", class: "viewer-frame", "data-strength": shown(place.strength),
      onclick: () => { if (mix().rows.length) setMix(withStrength(mix(), mix().focus, place.strength), { settled: true }); },
    }, make("span", { class: "viewer-frame-picture" }), make("span", { class: "viewer-frame-label" }, shown(place.strength))))));
  }
  places.forEach((place, index) => {
    const button = parts.film.children[index].firstChild;
    const holder = button.firstChild;
    button.setAttribute("aria-pressed", String(place.here));
    button.title = fill(place.url ? words.frame : words.frame_waiting, { strength: shown(place.strength) });
    button.classList.toggle("waiting", !place.url && Boolean(state.filling));
    if (place.url) {
      if (!holder.firstChild) holder.append(make("img", { alt: "", draggable: "false" }));
      source(holder.firstChild, place.url);
    } else holder.replaceChildren();
  });
};

const drawOthers = (parts, words, pictures, chosen, choose) => {
  parts.others.setAttribute("aria-label", words.pictures);
  setShown(parts.others, pictures.length > 1);
  if (parts.others.childElementCount !== pictures.length) {
    parts.others.replaceChildren(...pictures.map((_, index) => make("button", {
      type: "button", class: "viewer-other", onclick: () => choose(index),
    }, make("img", { alt: "", draggable: "false" }))));
  }
  pictures.forEach((picture, index) => {
    const button = parts.others.children[index];
    button.setAttribute("aria-label", fill(words.picture_number, { number: index + 1, seed: picture.seed }));
    button.setAttribute("aria-pressed", String(index === chosen));
    const styled = picture.frames.find((frame) => frame.strengths.some((value) => value !== 0)) ?? picture.frames[0];
    const url = styled ? styled.url : picture.base;
    setShown(button.firstChild, Boolean(url));
    if (url) source(button.firstChild, url);
  });
};

const drawUnder = (parts, state, look, picture) => {
  const shownNow = Boolean(look.url && picture);
  setShown(parts.caption.parentElement, shownNow);
  if (!shownNow) return;
  setText(parts.caption, fill(state.caption || "", { seed: picture.seed }));
  setText(parts.save, state.words.save);
  parts.save.href = look.url;
  const strength = look.strengths && look.strengths.length ? look.strengths.map(shown).join("-") : "base";
  parts.save.download = `${state.file || "picture"}-${picture.seed}-${strength}.png`;
};
