import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenOf, filesBelow, sendAll } from "../../app/static/uploads.js";

const named = (...names) => names.map((name) => ({ name }));
const names = (files) => files.map((file) => file.name);

test("of a folder, images and captions are sent and hidden files are not", () => {
  assert.deepEqual(names(chosenOf(named("a.PNG", ".DS_Store", "a.txt", "notes.docx"))), ["a.PNG", "a.txt"]);
});

test("phone photos count as images", () => {
  assert.deepEqual(names(chosenOf(named("IMG_1.HEIC", "x.pdf"))), ["IMG_1.HEIC"]);
});

test("when nothing is known all is sent, so that the studio can say why it refuses", () => {
  assert.deepEqual(names(chosenOf(named("movie.mov"))), ["movie.mov"]);
});

const file = (name) => ({ isFile: true, file: (resolve) => resolve({ name }) });
// readEntries hands out a folder in batches, as browsers do beyond a hundred entries.
const folder = (...batches) => ({
  isDirectory: true,
  createReader: () => {
    const left = [...batches];
    return { readEntries: (resolve) => resolve(left.shift() ?? []) };
  },
});

test("a folder is read to its last batch and into its folders", async () => {
  const found = await filesBelow([folder([file("a"), folder([file("b")])], [file("c")]), file("d")]);
  assert.deepEqual(names(found), ["a", "b", "c", "d"]);
});

test("answers keep the order of the files, whichever arrives first", async () => {
  const delays = { a: 20, b: 1, c: 10 };
  const send = ({ name }) => new Promise((done) => setTimeout(() => done({ path: `/up/${name}` }), delays[name]));
  const sent = await sendAll(named("a", "b", "c"), send, () => {});
  assert.deepEqual(sent.map((each) => each.path), ["/up/a", "/up/b", "/up/c"]);
});

test("a file that does not arrive costs no other one, and is told without a path", async () => {
  const send = async ({ name }) => {
    if (name === "b") throw new Error("torn");
    return { path: name };
  };
  const counts = [];
  const sent = await sendAll(named("a", "b", "c"), send, (done, total) => counts.push(`${done}/${total}`));
  assert.deepEqual(sent.map(({ path, name }) => [path, name]), [["a", "a"], ["", "b"], ["c", "c"]]);
  assert.deepEqual(counts, ["0/3", "1/3", "2/3", "3/3"]);
});

test("a file tells of the folder that it lay in, chosen or dropped", async () => {
  const dropped = await filesBelow([{ ...folder([file("a.png")]), name: "10_cats" }, file("b.png")]);
  const chosen = { name: "c.png", webkitRelativePath: "pets/5_dogs/c.png" };
  const sent = await sendAll([...dropped, chosen], async ({ name }) => ({ path: name }), () => {});
  assert.deepEqual(sent.map((each) => each.folder), ["10_cats", "", "5_dogs"]);
});

test("no more than four are on their way at once", async () => {
  let now = 0;
  let most = 0;
  const send = async () => {
    now += 1;
    most = Math.max(most, now);
    await new Promise((done) => setTimeout(done, 1));
    now -= 1;
    return { path: "x" };
  };
  await sendAll(named(..."abcdefghijkl"), send, () => {});
  assert.equal(most, 4);
});
