// The styles in the mixer, shared by what shows and what changes them: {rows: [{style, name, strength, step, ...}], focus}.
const listeners = new Set();
let value = { rows: [], focus: 0 };

export const mix = () => value;

export const onMix = (listener) => listeners.add(listener);

// `settled`: nobody is still dragging, so the studio may be asked.
export const setMix = (next, { settled = false } = {}) => {
  value = { rows: next.rows, focus: Math.max(0, Math.min(next.focus, next.rows.length - 1)) };
  for (const listener of listeners) listener(value, settled);
};

export const withStrength = (current, index, strength) => ({
  rows: current.rows.map((row, place) => (place === index ? { ...row, strength } : row)),
  focus: index,
});

export const without = (current, index) => ({
  rows: current.rows.filter((_, place) => place !== index),
  focus: current.focus > index ? current.focus - 1 : current.focus,
});

// Rows as their styles are called by now; what the user set stays.
export const renewed = (current, facts) => ({
  rows: current.rows.map((row) => {
    const known = facts[row.style];
    return known ? { ...row, name: known.name, trigger: known.trigger, steps: known.steps, live: known.live } : row;
  }),
  focus: current.focus,
});
