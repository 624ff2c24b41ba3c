// Elements from values. Text only ever becomes text, so names and prompts of users cannot become elements.
export const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
};

export const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

export const setShown = (node, visible) => {
  if (node.hidden === visible) node.hidden = !visible;
};

// The state that a panel carries for its script, or an empty one before the first answer.
export const stateOf = (element) => JSON.parse(element.querySelector("[data-state]")?.dataset.state ?? "{}");
