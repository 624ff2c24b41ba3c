// Pictures made before: one card each job; a click takes its settings up again. Removing waits a moment for "Undo"
// before the server is told, because a removed picture does not come back.
const root = element.querySelector(".results");
const texts = props.texts;
const UNDO_MS = 6000;
const leaving = new Map(); // job id -> timer

const empty = make("p", { class: "results-empty" }, texts.no_results);
const list = make("ul", { class: "results-grid", "aria-label": texts.results });
root.append(empty, list);

const forget = (id) => {
  leaving.set(id, setTimeout(() => { leaving.set(id, 0); trigger("remove", { id }); }, UNDO_MS));
  drawn = "";
  draw();
  const undo = list.querySelector(`[data-job="${CSS.escape(id)}"] .results-undo`);
  if (undo) undo.focus();
};
const keep = (id) => {
  clearTimeout(leaving.get(id));
  leaving.delete(id);
  drawn = "";
  draw();
};

const card = (item) => {
  if (leaving.has(item.id)) {
    return make("li", { class: "results-card leaving", "data-job": item.id },
      make("span", {}, texts.removed),
      make("button", { type: "button", class: "results-undo", onclick: () => keep(item.id) }, texts.undo));
  }
  return make("li", { class: "results-card", "data-job": item.id },
    make("button", {
      type: "button", class: "results-use", title: texts.use_help, "aria-label": fill(texts.use, { caption: item.caption }),
      onclick: () => trigger("use", { id: item.id }),
    },
    make("span", { class: `results-pictures of-${Math.min(4, item.urls.length)}` },
      item.urls.slice(0, 4).map((url) => make("img", { src: url, alt: "", loading: "lazy", draggable: "false" }))),
    make("span", { class: "results-caption" }, item.caption),
    make("span", { class: "results-detail" }, item.detail)),
    make("button", {
      type: "button", class: "results-remove", "aria-label": fill(texts.remove_result, { caption: item.caption }),
      title: texts.remove_short, onclick: () => forget(item.id),
    }, make("span", { "aria-hidden": "true" }, "\u00d7")));
};

let drawn = "";
const draw = () => {
  const items = props.value || [];
  const shape = JSON.stringify(items);
  for (const [id, timer] of leaving) if (timer === 0 && !items.some((item) => item.id === id)) leaving.delete(id);
  if (shape === drawn && props.value) return;
  drawn = shape;
  setShown(empty, items.length === 0 && Array.isArray(props.value));
  list.replaceChildren(...items.map(card));
};
watch("value", draw);
draw();
