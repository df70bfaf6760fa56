// The faceset browser: grid, pose map, orders, trash and undo, one face enlarged.
import { Grid } from "./grid.js";
import { PoseMap } from "./posemap.js";
import { look, lookAtSheets } from "./look.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");

const state = {
  side: start.side, trashed: start.trashed,
  names: [], versions: new Map(), order: null, poses: {}, filter: null,
  undo: [], // lists of names in the trash, last at the end
};

const side = make("select", { "aria-label": "faceset" },
  ...[["src", "src"], ["dst", "dst"], ["src-trash", "src trash"], ["dst-trash", "dst trash"]].map(
    ([value, text]) => make("option", { value }, text)));
side.value = state.side + (state.trashed ? "-trash" : "");
const by = make("select", { "aria-label": "order" }, make("option", { value: "" }, "by name"),
  ...start.orders.map((value) => make("option", { value }, value)));
const size = make("input", { type: "range", min: 64, max: 224, step: 16, value: 112,
  "aria-label": "size of the pictures" });
const count = make("span", { class: "mute count" });
const button = (text, action, attributes = {}) =>
  make("button", { onclick: () => attempt(action), ...attributes }, text);
const trash = button("Move to trash", move, { id: "trash", title: "Del" });
const undo = button("Undo", takeBack, { id: "undo", title: "Ctrl Z" });
const sort = button("Rename to this order", () => renaming(by.value, "renaming"), { id: "sort" });
const unsort = button("Undo renaming", () => renaming("undo", "taking it back"), { id: "unsort" });
const sheets = button("Before / after", () => lookAtSheets(state.side, by.value), { id: "sheets" });
const scroll = make("div", { class: "scroll", tabindex: "0" });
const canvas = make("canvas", { width: 632, height: 460, "aria-label": "map of yaw and pitch" });
const facts = make("table");
const about = make("div", { class: "mute" });

main.append(
  make("div", { class: "bar" }, side, count, make("label", {}, "order", by), sort, unsort, sheets,
    make("span", { class: "space" }), make("label", {}, "size", size), undo, trash),
  make("div", { class: "body" }, scroll, make("aside", {},
    make("div", {}, make("b", {}, "Head poses"), " ", about), canvas, facts,
    make("div", { class: "keys" },
      make("kbd", {}, "click"), " choose, with ", make("kbd", {}, "Shift"), " a range, ",
      make("kbd", {}, "Ctrl"), " one more · ", make("kbd", {}, "arrows"), " ",
      make("kbd", {}, "Space"), " ", make("kbd", {}, "Ctrl A"), " by keys · ",
      make("kbd", {}, "Enter"), " or double click enlarges · ", make("kbd", {}, "Del"),
      " to the trash · ", make("kbd", {}, "Ctrl Z"), " takes it back · drag on the map to filter"))));

const address = (what, name) =>
  `/api/faces/${state.side}/${what}/${encodeURIComponent(name)}?trashed=${state.trashed}` +
  `&v=${state.versions.get(name)}`;
const grid = new Grid(scroll, {
  picture: (name) => address("thumb", name), label: (name) => name.replace(/\.png$/, ""),
  changed: () => { tell(); showFacts(); },
});
grid.opened = (name) => enlarge(name);
const map = new PoseMap(canvas, (filter) => { state.filter = filter; show(); });

async function attempt(action) {
  try { await action(); } catch (error) { say(error.message, true); }
}

async function load() {
  const found = await call(`/api/faces/${state.side}?trashed=${state.trashed}`);
  state.names = found.names;
  state.versions = new Map(found.names.map((name, i) => [name, found.versions[i]]));
  for (const name of grid.chosen) if (!state.versions.has(name)) grid.chosen.delete(name);
  show();
}

function shown() {
  let names = state.names;
  if (state.order) {
    const there = new Set(names);
    names = state.order.filter((name) => there.has(name));
  }
  if (!state.filter) return names;
  return names.filter((name) => state.poses[name] && state.filter(state.poses[name]));
}

function show() {
  grid.show(shown());
  map.show(Object.entries(state.poses).filter(([name]) => state.versions.has(name))
    .map(([, pose]) => pose));
  tell();
}

function tell() {
  const total = state.names.length, seen = grid.items.length;
  const part = seen === total ? `${total} faces` : `${seen} of ${total} faces`;
  count.textContent = `${part}, ${grid.chosen.size} chosen`;
  trash.textContent = state.trashed ? "Restore" : "Move to trash";
  trash.disabled = !grid.chosen.size;
  undo.disabled = !state.undo.length || state.trashed;
  sort.disabled = sheets.disabled = state.trashed || !by.value;
  unsort.disabled = by.disabled = state.trashed;
}

let facing = "";
async function showFacts() {
  const name = grid.items[grid.cursor];
  if (!name || facing === name) return;
  facing = name;
  await new Promise((done) => setTimeout(done, 80)); // not for each face that keys run over
  if (facing !== name) return;
  facts.replaceChildren();
  try {
    const data = await call(address("data", name));
    if (facing !== name) return;
    for (const [key, value] of Object.entries({ file: name, ...data.facts })) {
      facts.append(make("tr", {}, make("td", {}, key), make("td", {}, value)));
    }
  } catch (error) {
    facts.append(make("tr", {}, make("td", {}, "bad"), make("td", {}, error.message)));
  }
}

function enlarge(name) {
  look(name, {
    picture: (n) => address("image", n), data: (n) => call(address("data", n)),
    step: (by) => { grid.go(grid.cursor + by); return grid.items[grid.cursor]; },
    remove: () => attempt(move).then(() => grid.items[grid.cursor]),
  });
}

async function move() {
  const names = grid.items.filter((name) => grid.chosen.has(name));
  if (!names.length) return;
  const path = state.trashed ? "/api/faces/restore" : "/api/faces/trash";
  const done = await call(path, { side: state.side, names });
  if (!state.trashed) state.undo.push(done.names);
  grid.chosen.clear();
  await load();
  say(state.trashed ? `${names.length} back` : `${names.length} moved to the trash; Ctrl Z takes it back`);
}

async function takeBack() {
  const names = state.undo.pop();
  if (!names || state.trashed) return;
  try {
    const done = await call("/api/faces/restore", { side: state.side, names });
    grid.chosen = new Set(done.names);
    say(`${done.names.length} back`);
  } catch (error) {
    state.undo.push(names);
    throw error;
  }
  await load();
}

async function reorder() {
  state.order = null;
  const wanted = by.value, of = state.side;
  show();
  while (wanted && wanted === by.value && of === state.side) {
    const { names } = await call("/api/faces/order", { side: of, by: wanted });
    if (names && wanted === by.value && of === state.side) {
      state.order = names;
      scroll.scrollTop = 0;
      say(`shown by ${wanted}; the files keep their names until you rename them`);
      show();
      return;
    }
    say(`finding the order by ${wanted} …`);
    await new Promise((done) => setTimeout(done, 500));
  }
}

async function renaming(key, what) {
  await call("/api/faces/sort", { side: state.side, by: key });
  let job;
  do {
    say(`${what} …`);
    await new Promise((done) => setTimeout(done, 500));
    job = await call(`/api/faces/${state.side}/sorting`);
  } while (job.running);
  const said = job.log.trim().split("\n").pop();
  say(said, job.code !== 0);
  by.value = "";
  state.order = null;
  state.undo = []; // the names in it were those of before
  grid.chosen.clear();
  await load();
}

async function readPoses() {
  const of = state.side;
  if (state.trashed) { state.poses = {}; about.textContent = ""; show(); return; }
  const { poses, missing } = await call(`/api/faces/${of}/poses`);
  if (of !== state.side) return;
  state.poses = poses;
  about.textContent = missing ? `reading, ${missing} to go` : "";
  map.show(Object.values(poses));
  if (state.filter) show();
  if (missing) setTimeout(() => attempt(readPoses), 1500);
}

side.addEventListener("change", () => {
  [state.side, state.trashed] = [side.value.split("-")[0], side.value.endsWith("-trash")];
  Object.assign(state, { order: null, poses: {}, undo: [] });
  by.value = "";
  grid.chosen.clear();
  map.clear();
  scroll.scrollTop = 0;
  attempt(async () => { await load(); await readPoses(); });
});
by.addEventListener("change", () => attempt(reorder));
size.addEventListener("input", () => { grid.side = Number(size.value); grid.layout(); });
document.addEventListener("studio-dark", () => map.draw());
document.addEventListener("keydown", (event) => {
  if (studio.typing(event) || document.querySelector(".look")) return;
  if (event.key === "Delete" || event.key === "x") attempt(move);
  else if (event.key === "z" && event.ctrlKey) attempt(takeBack);
  else if (event.key === "Escape") { grid.chosen.clear(); grid.mark(); tell(); }
  else if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  else if (event.key === "Enter") { if (grid.items.length) enlarge(grid.items[grid.cursor]); }
  else if (!grid.key(event)) return;
  event.preventDefault();
});

attempt(async () => { await load(); main.dataset.ready = "1"; await readPoses(); });
window.faces = { grid, state, map }; // for the tests and the bench
