// The styles of a preview: one row each with its strength. The value is {rows, focus}; what the user moves is put
// into the value at once, and told to the server when it is let go ("changed").
const root = element.querySelector(".mixer");
const texts = props.texts;
const empty = make("p", { class: "mixer-empty" }, texts.no_styles);
const list = make("ul", { class: "mixer-rows", "aria-label": texts.styles });
root.append(empty, list);

// Arrow keys let go at every press, so the server is told when they rest.
let resting = 0;
const letGo = () => {
  clearTimeout(resting);
  resting = setTimeout(() => trigger("changed", {}), 250);
};

const current = () => props.value || { rows: [], focus: 0 };
let drawn = "";

const put = (change, tell = true) => {
  const value = JSON.parse(JSON.stringify(current()));
  change(value);
  value.focus = Math.max(0, Math.min(value.focus, value.rows.length - 1));
  props.value = value;
  draw();
  if (tell) letGo();
};

const announce = () => {
  const value = current();
  const strengths = value.rows.map((row) => hundredths(row.strength));
  window.dispatchEvent(new CustomEvent("patina-strengths", { detail: { strengths, focus: value.focus } }));
};

const bounded = (text) => {
  const number = Number(text);
  return Number.isFinite(number) ? hundredths(Math.max(-1, Math.min(2, number))) : null;
};

const rowOf = (row, index, many) => {
  const label = fill(texts.strength_of, { name: row.name });
  const slider = make("input", {
    type: "range", min: -1, max: 2, step: 0.05, class: "mixer-slider", "aria-label": label, title: texts.strength_help,
  });
  const number = make("input", {
    type: "number", min: -1, max: 2, step: 0.05, class: "mixer-number", "aria-label": fill(texts.strength_number, { name: row.name }),
  });
  const move = (text) => {
    const strength = bounded(text);
    if (strength === null) return;
    const value = JSON.parse(JSON.stringify(current()));
    value.rows[index].strength = strength;
    value.focus = index;
    props.value = value;
    slider.value = strength;
    slider.style.setProperty("--at", `${((strength + 1) / 3) * 100}%`);
    if (document.activeElement !== number) number.value = shown(strength);
    root.querySelectorAll("input[type=radio]").forEach((radio, place) => { radio.checked = place === index; });
    announce();
  };
  slider.addEventListener("input", () => move(slider.value));
  slider.addEventListener("change", letGo);
  number.addEventListener("input", () => move(number.value));
  number.addEventListener("change", () => {
    number.value = shown(current().rows[index].strength);
    letGo();
  });
  slider.value = row.strength;
  slider.style.setProperty("--at", `${((row.strength + 1) / 3) * 100}%`);
  number.value = shown(row.strength);

  const versions = row.steps.length
    ? make("select", {
      class: "mixer-version", "aria-label": fill(texts.version_of, { name: row.name }),
      onchange: (event) => put((value) => { value.rows[index].step = Number(event.target.value); }),
    }, [0, ...row.steps].map((step) => make("option", { value: step, selected: step === row.step },
      step === 0 ? (row.live ? texts.version_live : texts.version_final) : fill(texts.version_step, { step }))))
    : null;
  const trigger_chip = row.trigger
    ? make("button", {
      type: "button", class: "mixer-trigger", title: texts.trigger_help,
      onclick: () => trigger("words", { words: row.trigger }),
    }, fill(texts.trigger, { words: row.trigger }))
    : null;
  const focus = many
    ? make("label", { class: "mixer-focus", title: texts.focus_help },
      make("input", {
        type: "radio", name: "mixer-focus", checked: index === current().focus,
        onchange: () => { put((value) => { value.focus = index; }); announce(); },
      }), texts.focus)
    : null;
  const remove = make("button", {
    type: "button", class: "mixer-remove", "aria-label": fill(texts.remove, { name: row.name }), title: fill(texts.remove, { name: row.name }),
    onclick: () => {
      put((value) => {
        value.rows.splice(index, 1);
        if (value.focus > index) value.focus -= 1;
      });
      (root.querySelector(".mixer-remove") || root).focus();
    },
  }, make("span", { "aria-hidden": "true" }, "\u00d7"));
  return make("li", { class: "mixer-row", "data-style": row.style },
    make("div", { class: "mixer-head" }, make("span", { class: "mixer-name" }, row.name),
      row.live ? make("span", { class: "mixer-live" }, texts.live) : null, versions, remove),
    make("div", { class: "mixer-line" }, slider, number),
    make("div", { class: "mixer-marks", "aria-hidden": "true" },
      make("span", { style: "left:33.33%" }, texts.mark_base), make("span", { style: "left:66.67%" }, texts.mark_trained)),
    trigger_chip || focus ? make("div", { class: "mixer-foot" }, trigger_chip, focus) : null);
};

const draw = () => {
  const value = current();
  const shape = JSON.stringify([value.rows.map((row) => ({ ...row, strength: null })), value.focus]);
  setShown(empty, value.rows.length === 0);
  if (shape !== drawn) {
    drawn = shape;
    list.replaceChildren(...value.rows.map((row, index) => rowOf(row, index, value.rows.length > 1)));
    return;
  }
  value.rows.forEach((row, index) => {
    const item = list.children[index];
    const slider = item.querySelector(".mixer-slider");
    const number = item.querySelector(".mixer-number");
    slider.value = row.strength;
    slider.style.setProperty("--at", `${((row.strength + 1) / 3) * 100}%`);
    if (document.activeElement !== number) number.value = shown(row.strength);
  });
};

root.tabIndex = -1;
window.addEventListener("patina-set-strength", (event) => {
  const value = current();
  if (!root.isConnected || !value.rows.length) return;
  put((next) => { next.rows[next.focus].strength = hundredths(event.detail.strength); });
  announce();
});
watch("value", () => { draw(); announce(); });
draw();
announce();
