// Fields of a panel: what is in them, and what a rendering says should be.

export const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);

// Attributes follow the values, so that Gradio compares the next rendering with what is there.
export const put = (field, value) => {
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

// What the server rendered into a field; null for a radio button that is not the chosen one.
export const rendered = (field) => {
  if (field.type === "radio") return field.hasAttribute("checked") ? field.value : null;
  if (field.type === "checkbox") return field.hasAttribute("checked");
  if (field.tagName === "SELECT") return field.querySelector("option[selected]")?.value ?? field.value;
  return field.tagName === "INPUT" ? field.getAttribute("value") : field.defaultValue;
};

// What a user entered holds against renderings that were on their way already: until one agrees, or for a while.
export class Entered {
  constructor(hold = 5000, now = () => Date.now()) {
    this.hold = hold;
    this.now = now;
    this.values = new Map();
  }

  set(key, value) {
    this.values.set(key, { value, until: this.now() + this.hold });
  }

  // What a field should show: the user's value while it holds, else the rendered one.
  settle(key, values) {
    const mine = this.values.get(key);
    if (mine && (values.includes(mine.value) || this.now() > mine.until)) this.values.delete(key);
    return this.values.has(key) ? { value: mine.value, mine: true } : { value: values[0] ?? "", mine: false };
  }
}

// What was entered in the last seconds, in its order. It goes along with whatever is sent, so that no request overtakes
// it (app/entered.py); of a field the newest entry alone.
export class Lately {
  constructor(page, hold = 5000, now = () => Date.now()) {
    this.page = page;
    this.hold = hold;
    this.now = now;
    this.count = 0;
    this.entries = new Map();
  }

  add(key, entry) {
    this.count += 1;
    this.entries.delete(key);
    this.entries.set(key, { until: this.now() + this.hold, entry: { ...entry, number: this.count } });
  }

  carried() {
    for (const [key, { until }] of this.entries) if (this.now() > until) this.entries.delete(key);
    return { page: this.page, entries: [...this.entries.values()].map(({ entry }) => entry) };
  }
}

export const keyOf = (field) => `${field.dataset.set} ${field.dataset.image ?? ""}`;
