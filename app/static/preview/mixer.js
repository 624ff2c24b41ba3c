// The styles of a preview, a row each: which and in what state, then how strong and the words that call it. The value
// of its component follows what the user moves at once; the server is told when it is let go ("changed").
import { make, setShown } from "../dom.js";
import { fill } from "../text.js";
import { mix, onMix, setMix, withStrength, without } from "./mix.js";
import { bounded, shown } from "./strength.js";
import { onStyles, styles } from "./styles.js";

// Arrow keys let go at every press, so the server is told when they rest.
const REST = 250;

export const attach = ({ element, tell, watch, props }) => {
  const root = element.querySelector(".mixer");
  const empty = make("p", { class: "mixer-empty" });
  const list = make("ul", { class: "mixer-rows" });
  const add = make("select", { class: "mixer-add" });
  root.append(empty, list, add);
  root.tabIndex = -1;

  let resting = 0;
  const letGo = () => {
    clearTimeout(resting);
    resting = setTimeout(() => tell.changed(), REST);
  };

  add.addEventListener("change", () => {
    if (add.value) tell.put_in(add.value);
    add.value = "";
  });

  let drawn = "";
  const draw = () => {
    const { words, offered = [], lowest, highest } = styles();
    if (!words) return;
    const value = mix();
    empty.textContent = words.no_styles;
    list.setAttribute("aria-label", words.styles);
    setShown(empty, value.rows.length === 0);
    const shape = JSON.stringify([value.rows.map((row) => ({ ...row, strength: null })), value.focus, words]);
    if (shape !== drawn) {
      drawn = shape;
      const focused = list.contains(document.activeElement) ? document.activeElement.dataset.part : null;
      list.replaceChildren(...value.rows.map((row, index) => rowOf(row, index, { words, lowest, highest, letGo, tell, root })));
      if (focused) list.querySelector(`[data-part="${CSS.escape(focused)}"]`)?.focus();
    }
    value.rows.forEach((row, index) => {
      const number = list.children[index].querySelector(".mixer-number");
      if (document.activeElement !== number) number.value = shown(row.strength);
    });
    const others = offered.filter((style) => !value.rows.some((row) => row.style === style.id));
    setShown(add, others.length > 0 || offered.length === 0);
    drawAdd(add, others, words);
  };

  onStyles(draw);
  onMix((value, settled) => {
    if (JSON.stringify(props.value) !== JSON.stringify(value)) props.value = value;
    draw();
    if (settled) letGo();
  });
  watch("value", () => {
    if (JSON.stringify(props.value) !== JSON.stringify(mix())) setMix(props.value || { rows: [], focus: 0 });
  });
  setMix(props.value || { rows: [], focus: 0 });
};

const drawAdd = (add, offered, words) => {
  const shape = JSON.stringify([offered, words.add]);
  if (add.dataset.shape === shape) return;
  add.dataset.shape = shape;
  add.setAttribute("aria-label", words.add_label);
  add.disabled = offered.length === 0;
  add.replaceChildren(
    make("option", { value: "" }, offered.length ? words.add : words.add_none),
    ...offered.map((style) => make("option", { value: style.id }, style.label)),
  );
};

const rowOf = (row, index, { words, lowest, highest, letGo, tell, root }) => {
  const many = mix().rows.length > 1;
  const name = many
    ? make("label", { class: "mixer-name", title: words.focus_help },
      make("input", {
        type: "radio", name: "mixer-focus", "data-part": `focus-${row.style}`, checked: index === mix().focus,
        onchange: () => setMix({ ...mix(), focus: index }, { settled: true }),
      }), make("span", {}, row.name))
    : make("span", { class: "mixer-name" }, make("span", {}, row.name));
  const versions = row.steps.length
    ? make("select", {
      class: "mixer-version", "aria-label": fill(words.version_of, { name: row.name }), "data-part": `version-${row.style}`,
      onchange: (event) => {
        const rows = mix().rows.map((one, place) => (place === index ? { ...one, step: Number(event.target.value) } : one));
        setMix({ rows, focus: index }, { settled: true });
      },
    }, [0, ...row.steps].map((step) => make("option", { value: step, selected: step === row.step },
      step === 0 ? (row.live ? words.version_live : words.version_final) : fill(words.version_step, { step }))))
    : null;
  const remove = make("button", {
    type: "button", class: "mixer-remove", "aria-label": fill(words.remove, { name: row.name }), title: fill(words.remove, { name: row.name }),
    onclick: () => {
      setMix(without(mix(), index), { settled: true });
      (root.querySelector(".mixer-remove") || root).focus();
    },
  }, make("span", { "aria-hidden": "true" }, "\u00d7"));
  const number = make("input", {
    type: "number", min: lowest, max: highest, step: 0.05, class: "mixer-number", title: words.strength_help,
    "aria-label": fill(words.strength_number, { name: row.name }), "data-part": `number-${row.style}`,
    oninput: (event) => {
      const strength = bounded(event.target.value, lowest, highest);
      if (strength !== null) setMix(withStrength(mix(), index, strength));
    },
    onchange: (event) => {
      event.target.value = shown(mix().rows[index].strength);
      letGo();
    },
  });
  const call = row.trigger
    ? make("button", {
      type: "button", class: "mixer-trigger", title: words.trigger_help, onclick: () => tell.words(row.trigger),
    }, fill(words.trigger, { words: row.trigger }))
    : null;
  return make("li", { class: "mixer-row", "data-style": row.style },
    make("div", { class: "mixer-head" }, name, row.live ? make("span", { class: "mixer-live" }, words.live) : null, versions, remove),
    make("div", { class: "mixer-line" }, make("span", { class: "mixer-strength" }, words.strength, number), call));
};
