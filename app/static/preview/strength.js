// Strengths as numbers of hundredths, and which frame shows for which strengths. Nothing here touches the page.

// 0.30000000000000004 is 0.3.
export const hundredths = (value) => Math.round(Number(value) * 100) / 100;
export const shown = (value) => hundredths(value).toFixed(2).replace(/0$/, "").replace(/\.0$/, "");

// A strength that was typed or dragged, within the bounds; null when it is no number.
export const bounded = (text, lowest, highest) => {
  const number = Number(text);
  return String(text).trim() !== "" && Number.isFinite(number) ? hundredths(Math.max(lowest, Math.min(highest, number))) : null;
};

const alike = (one, other) => one.length === other.length && one.every((value, index) => hundredths(value) === hundredths(other[index]));

// Whether the mixer holds the styles that a scene was drawn with; only then its strengths are about the scene.
export const sameStyles = (scene, mix) => scene.length === mix.rows.length
  && scene.every((use, index) => use.style === mix.rows[index].style && use.step === mix.rows[index].step);

// What strengths are looked at, and which of them the strip varies: as the sliders stand, or else as it was drawn.
export const wanted = (state, mix) => (mix && sameStyles(state.styles || [], mix)
  ? { strengths: mix.rows.map((row) => hundredths(row.strength)), focus: mix.focus }
  : { strengths: (state.strengths || []).map(hundredths), focus: state.focus || 0 });

// The frame with exactly these strengths, or the nearest that is made; null when there is none.
export const frameFor = (frames, strengths) => {
  let best = null;
  let least = Infinity;
  for (const frame of frames) {
    if (frame.strengths.length !== strengths.length) continue;
    const distance = frame.strengths.reduce((sum, value, index) => sum + (value - strengths[index]) ** 2, 0);
    if (distance < least) [best, least] = [frame, distance];
  }
  return best;
};

// Places of the strip: the usual ones, and the strength in focus if it is made; {strength, url or null, here}.
export const stripOf = (places, frames, strengths, focus) => {
  const made = new Map();
  for (const frame of frames) {
    const others = strengths.map((value, index) => (index === focus ? frame.strengths[focus] : value));
    if (alike(frame.strengths, others)) made.set(hundredths(frame.strengths[focus]), frame.url);
  }
  const now = strengths[focus];
  const all = new Set(places.map(hundredths));
  if (made.has(now)) all.add(now);
  return [...all].sort((a, b) => a - b).map((strength) => ({ strength, url: made.get(strength) ?? null, here: strength === now }));
};

// What the viewer shows of a picture: {url, base, strengths, exact}. `strengths` are those of the frame that is shown.
export const looking = (picture, strengths) => {
  if (!picture) return { url: null, base: null, strengths: null, exact: false };
  const frame = frameFor(picture.frames, strengths);
  const url = frame ? frame.url : picture.base;
  return { url, base: picture.base, strengths: frame && frame.strengths, exact: Boolean(frame) && alike(frame.strengths, strengths) };
};
