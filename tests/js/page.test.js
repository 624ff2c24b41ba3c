import assert from "node:assert/strict";
import { test } from "node:test";
import { tabChooser, withParts } from "../../app/static/page.js";
import { inSight } from "../../app/static/train/pictures.js";
import { fill } from "../../app/static/text.js";
import { hasEnded, languageCookie } from "../../app/static/header.js";

const TABS = ["train", "preview", "library"];

test("a part of the address is set and an empty one is removed", () => {
  const href = "http://127.0.0.1:7860/?tab=train&run=run-1";
  assert.equal(withParts(href, { run: "run-2" }), "http://127.0.0.1:7860/?tab=train&run=run-2");
  assert.equal(withParts(href, { run: "" }), "http://127.0.0.1:7860/?tab=train");
});

test("until the address has had its way, every tab that opens is the address's", () => {
  const choose = tabChooser("library", TABS);
  assert.equal(choose("train"), "library");
  assert.equal(choose("library"), "library");
  assert.equal(choose("train"), "train");
});

test("an address that names no tab opens the first", () => {
  assert.equal(tabChooser("cellar", TABS)("train"), "train");
  assert.equal(tabChooser(null, TABS)("train"), "train");
});

test("braces are filled and unknown ones stay", () => {
  assert.equal(fill("{done} of {total}, {else}", { done: 0, total: 3 }), "0 of 3, {else}");
});

test("the language is kept for a year, for this site alone", () => {
  assert.match(languageCookie("zh"), /^patina_language=zh; path=\/; max-age=31536000; SameSite=Lax$/);
});

test("a run has ended when it was in training here before and is the one that was finished last", () => {
  assert.equal(hasEnded("run-1", { alive: "", finished: "run-1" }), true);
  assert.equal(hasEnded("run-1", { alive: "run-2", finished: "run-1" }), true);
  assert.equal(hasEnded("run-1", { alive: "run-1", finished: "run-1" }), false);
  assert.equal(hasEnded("run-1 run-2", { alive: "run-1", finished: "run-2" }), true);
  assert.equal(hasEnded("run-1 run-2", { alive: "run-1", finished: "run-0" }), false);
});

test("a page that was just opened, a paused run and another's end are no news", () => {
  assert.equal(hasEnded("", { alive: "", finished: "run-1" }), false);
  assert.equal(hasEnded("", { alive: "", finished: "" }), false);
  assert.equal(hasEnded("run-1", { alive: "", finished: "run-0" }), false);
});

test("the picture in sight stays in sight, and the first takes the place of one that is gone", () => {
  assert.equal(inSight(2, 4), 2);
  assert.equal(inSight(2, 1), 0);
  assert.equal(inSight(0, 0), 0);
});
