import assert from "node:assert/strict";
import { test } from "node:test";
import { tabChooser, withParts } from "../../app/static/page.js";
import { fill } from "../../app/static/text.js";
import { languageCookie } from "../../app/static/header.js";

test("a part of the address is set and an empty one is removed", () => {
  const href = "http://127.0.0.1:7860/?tab=train&run=run-1";
  assert.equal(withParts(href, { run: "run-2" }), "http://127.0.0.1:7860/?tab=train&run=run-2");
  assert.equal(withParts(href, { run: "" }), "http://127.0.0.1:7860/?tab=train");
});

test("until the address has had its way, every tab that opens is the address's", () => {
  const choose = tabChooser("library");
  assert.equal(choose("train"), "library");
  assert.equal(choose("library"), "library");
  assert.equal(choose("train"), "train");
});

test("an address that names no tab opens the first", () => {
  assert.equal(tabChooser("cellar")("train"), "train");
  assert.equal(tabChooser(null)("train"), "train");
});

test("braces are filled and unknown ones stay", () => {
  assert.equal(fill("{done} of {total}, {else}", { done: 0, total: 3 }), "0 of 3, {else}");
});

test("the language is kept for a year, for this site alone", () => {
  assert.match(languageCookie("zh"), /^patina_language=zh; path=\/; max-age=31536000; SameSite=Lax$/);
});
