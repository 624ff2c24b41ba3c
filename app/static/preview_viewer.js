// The picture, its wipe against the base, and the strength filmstrip. The value says which frames exist; which of
// them is looked at is decided here, so moving the strength over made frames asks nobody.
const root = element.querySelector(".viewer");
const texts = props.texts;
const view = () => props.value || {};

let strengths = null; // as the sliders stand; null until they spoke
let focus = 0;
let chosen = 0; // which of several pictures

const nothing = make("div", { class: "viewer-nothing" }, make("p", {}, texts.nothing));
const after = make("img", { class: "viewer-after", draggable: "false", decoding: "async" });
const before = make("img", { class: "viewer-before", draggable: "false", decoding: "async", alt: "" });
const line = make("span", { class: "viewer-line", "aria-hidden": "true" }, make("span", { class: "viewer-knob" }));
const wipe = make("input", { type: "range", min: 0, max: 100, step: 1, value: 35, class: "viewer-wipe", "aria-label": texts.wipe });
const left = make("span", { class: "viewer-tag viewer-tag-left", "aria-hidden": "true" }, texts.base);
const right = make("span", { class: "viewer-tag viewer-tag-right", "aria-hidden": "true" });
const wanted = make("span", { class: "viewer-wanted", hidden: true });
const stage = make("div", { class: "viewer-stage" }, after, before, line, left, right, wanted, wipe);
const caption = make("p", { class: "viewer-caption" });
const save = make("a", { class: "viewer-save", download: "" }, texts.save);
const others = make("div", { class: "viewer-others", role: "group", "aria-label": texts.pictures });
const bar = make("progress", { class: "viewer-progress", max: 1, "aria-label": texts.progress });
const status = make("p", { class: "viewer-status", role: "status", "aria-live": "polite" });
const film = make("ol", { class: "viewer-film", "aria-label": texts.film });
const filmOffer = make("button", { type: "button", class: "viewer-offer", onclick: () => trigger("film", {}) });
const filmTitle = make("h3", { class: "viewer-film-title" });
root.append(make("div", { class: "viewer-top" }, nothing, stage), bar, status,
  make("div", { class: "viewer-under" }, caption, save), others,
  make("div", { class: "viewer-strip" }, make("div", { class: "viewer-strip-head" }, filmTitle, filmOffer), film));

const setWipe = () => {
  stage.style.setProperty("--wipe", `${wipe.value}%`);
  wipe.setAttribute("aria-valuetext", fill(texts.wipe_value, { percent: wipe.value }));
};
wipe.addEventListener("input", setWipe);
setWipe();

const source = (image, url) => {
  if (image.getAttribute("src") !== url) image.setAttribute("src", url);
};

// Frames are keyed by all strengths, so a frame made for one row still counts when another row is in focus.
const keyOf = (values) => values.map((value) => shown(value)).join(" ");
const framesAt = (picture) => {
  const found = new Map();
  const now = strengths || view().strengths || [];
  for (const frame of picture.frames) {
    const same = frame.strengths.length === now.length
      && frame.strengths.every((value, index) => index === focus || hundredths(value) === hundredths(now[index]));
    if (same) found.set(hundredths(frame.strengths[focus] ?? 0), frame.url);
  }
  return found;
};

const nearest = (frames, strength) => {
  let best = null;
  for (const value of frames.keys()) {
    if (best === null || Math.abs(value - strength) < Math.abs(best - strength)) best = value;
  }
  return best;
};

const drawFilm = (picture, frames, strength) => {
  const names = view().film || [];
  const focused = view().names ? view().names[focus] : "";
  setText(filmTitle, focused ? fill(texts.film_of, { name: focused }) : texts.film);
  const places = [...new Set([...names, ...(frames.has(strength) ? [strength] : [])])].sort((a, b) => a - b);
  if (film.childElementCount !== places.length || film.dataset.places !== String(places)) {
    film.dataset.places = String(places);
    film.replaceChildren(...places.map((value) => make("li", {},
      make("button", {
        type: "button", class: "viewer-frame", "data-strength": shown(value),
        onclick: () => window.dispatchEvent(new CustomEvent("patina-set-strength", { detail: { strength: value } })),
      }, make("span", { class: "viewer-frame-picture" }), make("span", { class: "viewer-frame-label" }, shown(value))))));
  }
  places.forEach((value, index) => {
    const button = film.children[index].firstChild;
    const holder = button.firstChild;
    const url = frames.get(value);
    button.setAttribute("aria-pressed", String(value === strength));
    button.setAttribute("aria-label", fill(url ? texts.frame : texts.frame_waiting, { strength: shown(value) }));
    button.classList.toggle("waiting", !url && view().film_state === "filling");
    if (url) {
      if (!holder.firstChild) holder.append(make("img", { alt: "", draggable: "false" }));
      source(holder.firstChild, url);
    } else holder.replaceChildren();
  });
  setShown(film.closest(".viewer-strip"), Boolean(picture) && names.length > 0);
  setShown(filmOffer, view().film_state === "offer");
  setText(filmOffer, view().film_offer || "");
};

const drawOthers = (pictures) => {
  setShown(others, pictures.length > 1);
  if (others.childElementCount !== pictures.length) {
    others.replaceChildren(...pictures.map((picture, index) => make("button", {
      type: "button", class: "viewer-other", onclick: () => { chosen = index; draw(); },
    }, make("img", { alt: "", draggable: "false" }))));
  }
  pictures.forEach((picture, index) => {
    const button = others.children[index];
    button.setAttribute("aria-label", fill(texts.picture_number, { number: index + 1, seed: picture.seed }));
    button.setAttribute("aria-pressed", String(index === chosen));
    const any = picture.frames.length ? picture.frames[0].url : picture.base;
    setShown(button.firstChild, Boolean(any));
    if (any) source(button.firstChild, any);
  });
};

const draw = () => {
  const value = view();
  const pictures = value.pictures || [];
  chosen = Math.max(0, Math.min(chosen, pictures.length - 1));
  const picture = pictures[chosen];
  const now = (strengths && strengths.length === (value.strengths || []).length ? strengths : value.strengths) || [];
  const strength = hundredths(now[focus] ?? 0);
  const frames = picture ? framesAt(picture) : new Map();
  const at = frames.has(strength) ? strength : nearest(frames, strength);
  const url = at !== null ? frames.get(at) : (picture && picture.base) || null;
  setShown(nothing, !url);
  setShown(stage, Boolean(url));
  root.classList.toggle("busy", ["queued", "working"].includes(value.state));
  if (url) {
    source(after, url);
    after.alt = fill(texts.alt, { prompt: value.prompt || "", strength: at === null ? "0" : shown(at) });
    const compare = Boolean(picture.base) && picture.base !== url && at !== null;
    if (compare) source(before, picture.base);
    for (const node of [before, line, left, wipe]) setShown(node, compare);
    setText(right, at === null || now.length === 0 ? texts.base : fill(texts.at_strength, { strength: shown(at) }));
    const missing = at !== strength && now.length > 0;
    setShown(wanted, missing);
    setText(wanted, missing ? fill(texts.nearest, { strength: shown(strength) }) : "");
    save.href = url;
    save.download = `${value.file || "picture"}-${picture.seed}-${at === null ? "base" : shown(at)}.png`;
    setText(caption, fill(value.caption || "", { seed: picture.seed }));
  }
  setShown(caption.parentElement, Boolean(url));
  setShown(bar, ["queued", "working"].includes(value.state));
  if (value.total) bar.value = value.done / value.total;
  else bar.removeAttribute("value");
  setText(status, value.message || "");
  status.classList.toggle("problem", value.state === "failed");
  if (value.job) patina.module("page.js").then((page) => page.setAddress({ job: value.job }));
  drawOthers(pictures);
  drawFilm(picture, frames, strength);
};

window.addEventListener("patina-strengths", (event) => {
  if (!root.isConnected) return;
  strengths = event.detail.strengths;
  focus = event.detail.focus;
  draw();
});
watch("value", draw);
draw();
trigger("opened", { job: new URL(location.href).searchParams.get("job") || "" });
