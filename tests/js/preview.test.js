import assert from "node:assert/strict";
import { test } from "node:test";
import { renewed, withStrength, without } from "../../app/static/preview/mix.js";
import { bounded, frameFor, looking, sameStyles, shown, stripOf, wanted } from "../../app/static/preview/strength.js";

const frame = (...strengths) => ({ strengths, url: `${strengths.join("_")}.png` });
const row = (style, strength, more = {}) => ({ style, strength, step: 0, name: style, ...more });
const INK = { style: "ink", step: 0, name: "Ink", made: "" };
const STATE = { styles: [INK], strengths: [1], focus: 0 };
const PICTURE = { seed: 7, base: "0.png", frames: [frame(0), frame(0.5), frame(1)] };

test("strengths show in hundredths without needless zeros", () => {
  assert.deepEqual([0.1 + 0.2, 1, 0, -0.5, 0.25].map(shown), ["0.3", "1", "0", "-0.5", "0.25"]);
});

test("what is typed is kept within the bounds, and what is no number is nothing", () => {
  assert.deepEqual(["3", "-7", "0.333", "", "one", " "].map((text) => bounded(text, -1, 2)), [2, -1, 0.33, null, null, null]);
});

test("while a slider is dragged the nearest made frame shows", () => {
  const look = looking(PICTURE, [0.6]);
  assert.deepEqual([look.url, look.strengths, look.exact, look.base], ["0.5.png", [0.5], false, "0.png"]);
  assert.equal(looking(PICTURE, [1]).exact, true);
});

test("with two styles the nearest frame is near in both", () => {
  const frames = [frame(1, 0), frame(1, 1), frame(0, 0)];
  assert.deepEqual(frameFor(frames, [0.9, 0.6]).strengths, [1, 1]);
  assert.equal(frameFor(frames, [1]), null);
});

test("before any frame is made the base shows, and before that nothing", () => {
  assert.equal(looking({ ...PICTURE, frames: [] }, [1]).url, "0.png");
  assert.equal(looking({ seed: 7, base: null, frames: [] }, [1]).url, null);
  assert.equal(looking(undefined, []).url, null);
});

test("a style that was added does not disturb the picture that is there", () => {
  const mix = { rows: [row("ink", 0.5), row("dots", 1)], focus: 1 };
  assert.equal(sameStyles(STATE.styles, mix), false);
  assert.deepEqual(wanted(STATE, mix), { strengths: [1], focus: 0 });
});

test("when it is removed again the sliders are about the picture again", () => {
  const mix = without({ rows: [row("ink", 0.5), row("dots", 1)], focus: 1 }, 1);
  assert.deepEqual(wanted(STATE, mix), { strengths: [0.5], focus: mix.focus });
});

test("another checkpoint of a style is another style", () => {
  assert.deepEqual(wanted(STATE, { rows: [row("ink", 0.5, { step: 100 })], focus: 0 }).strengths, [1]);
});

test("the strip has the usual places, and the strength in focus once it is made", () => {
  const places = stripOf([0, 0.5, 1, 1.5], [...PICTURE.frames, frame(0.55)], [0.55], 0);
  assert.deepEqual(places.map((place) => place.strength), [0, 0.5, 0.55, 1, 1.5]);
  assert.deepEqual(places.map((place) => Boolean(place.url)), [true, true, true, true, false]);
  assert.deepEqual(places.filter((place) => place.here).map((place) => place.strength), [0.55]);
});

test("frames count for the strip only if the other styles are as strong", () => {
  const places = stripOf([0, 1], [frame(0, 1), frame(1, 0.5)], [1, 1], 0);
  assert.deepEqual(places.map((place) => place.url), ["0_1.png", null]);
});

test("moving a strength brings its row into focus", () => {
  const moved = withStrength({ rows: [row("ink", 1), row("dots", 1)], focus: 0 }, 1, 0.25);
  assert.deepEqual([moved.rows.map((one) => one.strength), moved.focus], [[1, 0.25], 1]);
});

test("a row takes up its style's new name and keeps what the user set", () => {
  const now = renewed({ rows: [row("ink", 0.4, { step: 100 }), row("gone", 1)], focus: 0 },
    { ink: { name: "Ink 2", trigger: "ink", steps: [100, 200], live: false } });
  assert.deepEqual(now.rows[0], { style: "ink", strength: 0.4, step: 100, name: "Ink 2", trigger: "ink", steps: [100, 200], live: false });
  assert.deepEqual(now.rows[1], row("gone", 1));
});
