import assert from "node:assert/strict";
import { test } from "node:test";
import { Entered, Lately } from "../../app/static/fields.js";

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

test("what was entered is carried in its order, of a field the newest alone", () => {
  const lately = new Lately("page", 5000, () => 0);
  lately.add("name", { set: "name", value: "Cr" });
  lately.add("trigger", { set: "trigger", value: "crab" });
  lately.add("name", { set: "name", value: "Crab" });
  assert.deepEqual(lately.carried(), {
    page: "page",
    entries: [{ set: "trigger", value: "crab", number: 2 }, { set: "name", value: "Crab", number: 3 }],
  });
});

test("what was entered is carried for as long as its field shows it", () => {
  let now = 0;
  const lately = new Lately("page", 5000, () => now);
  lately.add("rank", { set: "adapter.rank", value: "0" });
  now = 5000;
  assert.equal(lately.carried().entries.length, 1);
  now = 5001;
  assert.deepEqual(lately.carried().entries, []);
});
