// A text with its {braces} filled in, as Python's str.format does for the server; unknown ones stay.
export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
