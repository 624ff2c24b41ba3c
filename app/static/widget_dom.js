// Put before each widget's script. Text only ever becomes text (textContent), never markup, so names and prompts
// of users cannot become elements; the templates of gradio's HTML component would evaluate them.
const make = (tag, attributes = {}, ...children) => {
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
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
// Strengths compare and show in hundredths: 0.30000000000000004 is 0.3.
const hundredths = (value) => Math.round(Number(value) * 100) / 100;
const shown = (value) => hundredths(value).toFixed(2).replace(/0$/, "").replace(/\.0$/, "");
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const setShown = (node, visible) => {
  if (node.hidden === visible) node.hidden = !visible;
};
