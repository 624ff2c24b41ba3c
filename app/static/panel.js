// Runs once for each panel (app/panels.py). Gradio gives `element`, `trigger`, `watch`, `upload`.
// Listeners sit on the panel's frame, because what is inside is re-rendered.

const marks = (node) => ({ ...node.dataset });

element.addEventListener("click", (event) => {
  const node = event.target.closest("[data-act]");
  if (!node || !element.contains(node) || node.disabled) return;
  if (node.dataset.ask && !confirm(node.dataset.ask)) return;
  if (node.dataset.tell) say(node.dataset.tell);
  const fields = {};
  for (const field of node.closest("[data-fields]")?.querySelectorAll("[name]") ?? []) fields[field.name] = field.value;
  trigger("click", { ...marks(node), fields });
});

// A button may lead to something folded elsewhere on the page.
element.addEventListener("click", (event) => {
  const name = event.target.closest("[data-open]")?.dataset.open;
  const folded = name && document.querySelector(`details[data-keep="${CSS.escape(name)}"]`);
  if (!folded) return;
  patina.opened.set(name, true);
  folded.open = true;
  folded.scrollIntoView({ behavior: "smooth", block: "start" });
  folded.querySelector("summary").focus({ preventScroll: true });
});

// What a user entered holds against renderings that were on their way already: until one agrees, or for a while.
const HOLD = 5000;
const entered = new Map();
const keyOf = (field) => `${field.dataset.set} ${field.dataset.image ?? ""}`;
const fieldsOf = (key) => [...element.querySelectorAll("[data-set]")].filter((field) => keyOf(field) === key);

const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);
// Attributes follow the values, so that Gradio compares the next rendering with what is there.
const put = (field, value) => {
  if (field.type === "radio") {
    field.checked = field.value === value;
    field.toggleAttribute("checked", field.checked);
  } else if (field.type === "checkbox") {
    field.checked = value;
    field.toggleAttribute("checked", value);
  } else if (field.tagName === "SELECT") {
    for (const option of field.options) option.toggleAttribute("selected", option.value === value);
    field.value = value;
  } else {
    if (field.tagName === "INPUT") field.setAttribute("value", value);
    if (field.value !== value) field.value = value;
  }
};
const rendered = (field) => {
  if (field.type === "radio") return field.hasAttribute("checked") ? field.value : null;
  if (field.type === "checkbox") return field.hasAttribute("checked");
  if (field.tagName === "SELECT") return field.querySelector("option[selected]")?.value ?? field.value;
  return field.tagName === "INPUT" ? field.getAttribute("value") : field.defaultValue;
};

// A field is sent when it is complete.
element.addEventListener("change", (event) => {
  const field = event.target.closest("[data-set]");
  if (!field) return;
  event.stopPropagation();
  const value = valueOf(field);
  entered.set(keyOf(field), { value, until: Date.now() + HOLD });
  for (const same of fieldsOf(keyOf(field))) put(same, value);
  trigger("input", { ...marks(field), value });
});

const settle = () => {
  const groups = new Map();
  for (const field of element.querySelectorAll("[data-set]")) {
    const key = keyOf(field);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(field);
  }
  for (const [key, fields] of groups) {
    const values = fields.map(rendered).filter((value) => value !== null);
    const mine = entered.get(key);
    if (mine && (values.includes(mine.value) || Date.now() > mine.until)) entered.delete(key);
    for (const field of fields) {
      if (entered.has(key)) put(field, mine.value);
      else if (field !== document.activeElement || field.type === "radio") put(field, values[0] ?? "");
    }
  }
};

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

const say = (text) => {
  const place = element.querySelector("[data-busy]");
  if (place) place.textContent = text;
};

// ---- what a user opened stays open over renderings

// Known at the click already: the toggle event comes later, and a rendering may come between.
element.addEventListener("click", (event) => {
  const node = event.target.closest("summary")?.parentElement;
  if (node?.dataset.keep) patina.opened.set(node.dataset.keep, !node.open);
});

watch("value", () => {
  for (const node of element.querySelectorAll("details[data-keep]")) {
    if (patina.opened.has(node.dataset.keep)) node.open = patina.opened.get(node.dataset.keep);
  }
  settle();
  // A notice comes with every answer to an action: what was said to be going on has ended.
  if (element.querySelector("[data-at]")) {
    for (const place of document.querySelectorAll("[data-busy][role=status]")) {
      if (!place.firstElementChild) place.textContent = "";
    }
  }
  const run = element.querySelector("[data-run]");
  if (run) patina.setAddress({ run: run.dataset.run });
});

// ---- files and folders

const filesOf = async (items) => {
  const found = [];
  const walk = async (entry, depth) => {
    if (entry.isFile) {
      found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    } else if (entry.isDirectory && depth < 3) {
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!batch.length) break;
        for (const child of batch) await walk(child, depth + 1);
      }
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry, 0);
  return found;
};

const wanted = (file) => !file.name.startsWith(".") && /\.(png|jpe?g|webp|bmp|tiff?|gif|heic|heif|avif|txt|caption|jsonl)$/i.test(file.name);

const send = async (files, zone) => {
  const chosen = [...files].filter((file) => !file.name.startsWith("."));
  const known = chosen.filter(wanted);
  const list = known.length ? known : chosen;
  if (!list.length) return;
  const sent = [];
  let done = 0;
  let next = 0;
  const tell = () => {
    say(zone.dataset.sending.replace("{done}", done).replace("{total}", list.length));
  };
  tell();
  zone.setAttribute("aria-busy", "true");
  const worker = async () => {
    while (next < list.length) {
      const index = next++;
      try {
        const { path } = await upload(list[index]);
        sent[index] = { path, name: list[index].name };
      } catch {
        sent[index] = { path: "", name: list[index].name };
      }
      done += 1;
      tell();
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
  say(zone.dataset.reading);
  zone.removeAttribute("aria-busy");
  trigger("upload", { ...marks(zone), files: sent });
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
  const walked = await filesOf(event.dataTransfer.items);
  send(walked.length ? walked : plain, zone);
});
