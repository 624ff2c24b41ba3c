import assert from "node:assert/strict";
import { test } from "node:test";
import { cropAround, partOf, placeAfter } from "../../app/static/train/editor.js";

const box = { left: 100, top: 50, width: 200, height: 100 };

test("a drag becomes shares of the picture, whichever way it goes", () => {
  assert.deepEqual(partOf(box, { x: 200, y: 100 }, { x: 150, y: 75 }), [0.25, 0.25, 0.5, 0.5]);
});

test("a drag that leaves the picture ends at its edge, and a click is no part", () => {
  assert.deepEqual(partOf(box, { x: 200, y: 100 }, { x: 900, y: 900 }), [0.5, 0.5, 1, 1]);
  assert.equal(partOf(box, { x: 200, y: 100 }, { x: 201, y: 101 }), null);
});

test("a crop follows the dot as far as the picture goes", () => {
  const near = (found, wanted) => found.forEach((share, at) => assert.ok(Math.abs(share - wanted[at]) < 1e-9, found));
  near(cropAround([0.25, 0, 0.75, 1], { x: 0.4, y: 0.9 }), [0.15, 0, 0.65, 1]);
  near(cropAround([0.25, 0, 0.75, 1], { x: 0.9, y: 0 }), [0.5, 0, 1, 1]);
  near(cropAround([0, 0.1, 1, 0.6], { x: 0.5, y: -3 }), [0, 0, 1, 0.5]);
});

test("after the last image comes the first", () => {
  assert.equal(placeAfter(2, 1, 3), 0);
  assert.equal(placeAfter(0, -1, 3), 2);
  assert.equal(placeAfter(0, 1, 0), -1);
});
