// The styles of the library as cards; one click opens a style beside the grid.
const root = element.querySelector(".cards");
const texts = props.texts;
const empty = make("div", { class: "cards-empty" }, make("p", {}));
const list = make("ul", { class: "cards-grid", "aria-label": texts.styles });
root.append(empty, list);

// Beside the grid there is nothing to do; on a phone the details lie below it.
const showDetails = () => {
  const details = document.querySelector("#library-details");
  if (matchMedia("(max-width: 720px)").matches && details) setTimeout(() => details.scrollIntoView({ block: "start" }), 350);
};

const card = (item) => make("li", {},
  make("button", {
    type: "button", class: "style-card", "data-style": item.id, "aria-pressed": "false",
    "aria-label": fill(texts.open, { name: item.name }), onclick: () => { trigger("open", { id: item.id }); showDetails(); },
  },
  make("span", { class: `style-card-pictures of-${Math.min(4, item.urls.length)}` },
    item.urls.length
      ? item.urls.slice(0, 4).map((url) => make("img", { src: url, alt: "", loading: "lazy", draggable: "false" }))
      : make("span", { class: "style-card-initial", "aria-hidden": "true" }, [...item.name][0] || "")),
  make("span", { class: "style-card-name" }, item.name),
  item.trigger ? make("span", { class: "style-card-trigger" }, item.trigger) : null,
  make("span", { class: "style-card-facts" }, item.facts)));

let drawn = "";
const draw = () => {
  const { items = [], open = "", message = "" } = props.value || {};
  // Until the first look there is nothing to say, least of all that the library is empty.
  setShown(empty, items.length === 0 && message !== "");
  setText(empty.firstChild, message);
  const shape = JSON.stringify(items);
  if (shape !== drawn) {
    const focused = document.activeElement && root.contains(document.activeElement) ? document.activeElement.dataset.style : null;
    drawn = shape;
    list.replaceChildren(...items.map(card));
    if (focused) list.querySelector(`[data-style="${CSS.escape(focused)}"]`)?.focus();
  }
  for (const button of list.querySelectorAll(".style-card")) {
    button.setAttribute("aria-pressed", String(button.dataset.style === open));
  }
};
watch("value", draw);
draw();
