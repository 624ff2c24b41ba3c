import assert from "node:assert/strict";
import { test } from "node:test";
import { Entered } from "../../app/static/fields.js";

test("what a user entered holds against a rendering that was on its way", () => {
  const entered = new Entered(5000, () => 0);
  entered.set("name", "mine");
  assert.deepEqual(entered.settle("name", ["theirs"]), { value: "mine", mine: true });
});

test("a rendering that agrees ends the hold, so a later one may differ", () => {
  const entered = new Entered(5000, () => 0);
  entered.set("name", "mine");
  entered.settle("name", ["mine"]);
  assert.deepEqual(entered.settle("name", ["theirs"]), { value: "theirs", mine: false });
});

test("a value that the server refused is given up after a while", () => {
  let now = 0;
  const entered = new Entered(5000, () => now);
  entered.set("rank", "0");
  now = 5001;
  assert.deepEqual(entered.settle("rank", ["8"]), { value: "8", mine: false });
});

test("fields do not hold each other", () => {
  const entered = new Entered(5000, () => 0);
  entered.set("caption a", "a cat");
  assert.equal(entered.settle("caption b", ["a dog"]).value, "a dog");
});

test("a field without a rendered value is empty", () => {
  assert.equal(new Entered().settle("base", []).value, "");
});
