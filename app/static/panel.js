// Attached once to each panel (app/refresh.py). Listeners sit on the panel's frame, because what is inside is
// rendered again and again; so they work for whatever a rendering brings.
import { Entered, keyOf, Lately, put, rendered, valueOf } from "./fields.js";
import { opened, runShown, setAddress } from "./page.js";
import { fill } from "./text.js";
import { chosenOf, filesBelow, sendAll } from "./uploads.js";

// By tab, what was entered there in the last seconds.
const lately = new Map();
const PAGE = [...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36)).join("");
const latelyIn = (element) => {
  const tab = element.closest("[id^=patina-tab-]")?.id ?? "";
  if (!lately.has(tab)) lately.set(tab, new Lately(`${PAGE} ${tab}`));
  return lately.get(tab);
};

// Returns what sends an entry, for fields that are not in the panel.
export const attach = (gradio) => {
  const enter = (data) => {
    const here = latelyIn(gradio.element);
    here.add(keyOf({ dataset: data }), { ...data, run: runShown() });
    gradio.trigger("input", { ...data, entered: here.carried() });
  };
  const say = (text) => {
    const place = gradio.element.querySelector("[data-busy]");
    if (place) place.textContent = text;
  };
  attachClicks(gradio, say);
  const settle = attachFields(gradio, enter);
  const putBack = attachTyped(gradio);
  attachUploads(gradio, say);
  gradio.watch("value", () => {
    for (const node of gradio.element.querySelectorAll("details[data-keep]")) {
      if (opened.has(node.dataset.keep)) node.open = opened.get(node.dataset.keep);
    }
    settle();
    putBack();
    endBusy(gradio.element);
    const where = gradio.element.querySelector("[data-run]");
    if (where) showRun(where.dataset);
  });
  return enter;
};

// Another run starts at its top, wherever one was in the last; so does a draft that becomes a run.
let before = null;
const showRun = ({ run, kind }) => {
  setAddress({ run });
  const now = `${run} ${kind}`;
  if (before !== null && before !== now) {
    window.scrollTo(0, 0);
    const right = document.getElementById("train-right");
    if (right) right.scrollTop = 0;
  }
  before = now;
};

// A notice comes with every answer to an action: what was said to be going on has ended.
const endBusy = (element) => {
  if (!element.querySelector("[data-at]")) return;
  for (const place of document.querySelectorAll("[data-busy][role=status]")) {
    if (!place.firstElementChild) place.textContent = "";
  }
};

const attachClicks = ({ element, trigger }, say) => {
  element.addEventListener("click", (event) => {
    const node = event.target.closest("[data-act]");
    if (!node || !element.contains(node) || node.disabled) return;
    if (node.dataset.ask && !confirm(node.dataset.ask)) return;
    if (node.dataset.tell) say(node.dataset.tell);
    // Where a button takes no focus, as under a finger, what is being typed is not left by pressing it.
    if (typing?.isConnected) typing.dispatchEvent(new Event("change", { bubbles: true }));
    const fields = {};
    for (const field of node.closest("[data-fields]")?.querySelectorAll("[name]") ?? []) fields[field.name] = field.value;
    trigger("click", { ...node.dataset, fields, entered: latelyIn(element).carried() });
  });

  // A button may lead to something folded elsewhere on the page.
  element.addEventListener("click", (event) => {
    const name = event.target.closest("[data-open]")?.dataset.open;
    if (!name) return;
    // Where the fold is on a tab that is not there yet, it opens when it comes.
    opened.set(name, true);
    const folded = document.querySelector(`details[data-keep="${CSS.escape(name)}"]`);
    if (!folded) return;
    folded.open = true;
    folded.scrollIntoView({ behavior: "smooth", block: "start" });
    folded.querySelector("summary").focus({ preventScroll: true });
  });

  // Known at the click already: the toggle event comes later, and a rendering may come between.
  element.addEventListener("click", (event) => {
    const node = event.target.closest("summary")?.parentElement;
    if (node?.dataset.keep) opened.set(node.dataset.keep, !node.open);
  });
};

// The field that was typed in and not left yet.
let typing = null;

// Returns what is to be done after each rendering.
const attachFields = ({ element }, enter) => {
  const entered = new Entered();
  const fieldsOf = (key) => [...element.querySelectorAll("[data-set]")].filter((field) => keyOf(field) === key);

  // A field is sent when it is complete.
  element.addEventListener("change", (event) => {
    const field = event.target.closest("[data-set]");
    if (!field) return;
    event.stopPropagation();
    typing = null;
    const value = valueOf(field);
    entered.set(keyOf(field), value);
    for (const same of fieldsOf(keyOf(field))) put(same, value);
    enter({ ...field.dataset, value });
  });

  element.addEventListener("input", (event) => {
    typing = event.target.closest("[data-set]") ?? typing;
  });

  element.addEventListener("keydown", (event) => {
    const field = event.target.closest("input[data-set]");
    if (field && event.key === "Enter") field.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // A slider says what it will do while it is dragged: data-says holds one text for each position.
  element.addEventListener("input", (event) => {
    const field = event.target.closest("input[type=range][data-says]");
    if (!field) return;
    const text = JSON.parse(field.dataset.says)[Number(field.value) - Number(field.min)];
    field.setAttribute("aria-valuetext", text);
    const output = element.querySelector(`output[for="${CSS.escape(field.id)}"]`);
    if (output) output.textContent = text;
  });

  return () => {
    for (const [key, fields] of grouped(element.querySelectorAll("[data-set]"))) {
      const { value, mine } = entered.settle(key, fields.map(rendered).filter((each) => each !== null));
      for (const field of fields) {
        if (mine || field !== document.activeElement || field.type === "radio") put(field, value);
      }
    }
  };
};

// Fields that only a button beside them sends: what is typed stays over renderings until then.
// Returns what is to be done after each rendering.
const attachTyped = ({ element }) => {
  const typed = new Map();
  const placeOf = (node) => {
    const { act, item } = node.closest("[data-fields]")?.querySelector("[data-act]")?.dataset ?? {};
    return act ? `${act} ${item ?? ""}` : null;
  };
  const fields = "[data-fields] [name]:not([data-set])";
  element.addEventListener("input", (event) => {
    const field = event.target.closest(fields);
    const place = field && placeOf(field);
    if (place) typed.set(place, { ...typed.get(place), [field.name]: field.value });
  });
  element.addEventListener("click", (event) => {
    const node = event.target.closest("[data-act]");
    if (node) typed.delete(placeOf(node));
  });
  return () => {
    for (const field of element.querySelectorAll(fields)) {
      const value = typed.get(placeOf(field))?.[field.name];
      if (value !== undefined && field.value !== value) field.value = value;
    }
  };
};

const grouped = (fields) => {
  const groups = new Map();
  for (const field of fields) groups.set(keyOf(field), [...(groups.get(keyOf(field)) ?? []), field]);
  return groups;
};

const attachUploads = ({ element, trigger, upload }, say) => {
  const send = async (files, zone) => {
    const list = chosenOf(files);
    if (!list.length) return;
    zone.setAttribute("aria-busy", "true");
    const sent = await sendAll(list, upload, (done, total) => say(fill(zone.dataset.sending, { done, total })));
    say(zone.dataset.reading);
    zone.removeAttribute("aria-busy");
    trigger("upload", { ...zone.dataset, files: sent });
  };

  element.addEventListener("change", (event) => {
    const picker = event.target.closest("[data-drop] input[type=file]");
    if (!picker || !picker.files.length) return;
    event.stopPropagation();
    send([...picker.files], picker.closest("[data-drop]"));
    picker.value = "";
  });
  for (const kind of ["dragover", "dragenter"]) {
    element.addEventListener(kind, (event) => {
      const zone = element.querySelector("[data-drop]");
      if (!zone || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    element.addEventListener(kind, (event) => {
      if (kind === "dragleave" && element.contains(event.relatedTarget)) return;
      element.querySelector("[data-drop]")?.classList.remove("over");
    });
  }
  element.addEventListener("drop", async (event) => {
    const zone = element.querySelector("[data-drop]");
    if (!zone) return;
    event.preventDefault();
    const plain = [...event.dataTransfer.files];
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const walked = await filesBelow(entries);
    send(walked.length ? walked : plain, zone);
  });
};
