// The faceset browser: grid, pose map, orders, filters, trash and undo, one face enlarged.
import { Grid } from "./grid.js";
import { PoseMap } from "./posemap.js";
import { RangeFilter, shortened } from "./rangefilter.js";
import { look, lookAtSheets } from "./look.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const POLL = 500; // milliseconds between two questions for an order or a renaming
const LOOK = 2000; // milliseconds between two looks for what other commands have changed
const MEASURES = ["blur", "motion_blur", "source_size", "brightness"]; // orders that filter, too

const state = {
  side: start.side, trashed: start.trashed,
  names: [], versions: new Map(), folder: "", poses: {},
  renaming: false, // by this page
  order: null, // {by, names, index: Map of name to place, values, groups}: how they are shown
  measures: {}, // by order: Map of name to value
  pose: null, // a test of a pose, from the map
  undo: [], // lists of names in the trash, last at the end
};

const side = make("select", { "aria-label": "faceset" },
  ...[["src", "src"], ["dst", "dst"], ["src-trash", "src trash"], ["dst-trash", "dst trash"]].map(
    ([value, text]) => make("option", { value }, text)));
side.value = state.side + (state.trashed ? "-trash" : "");
const by = make("select", { "aria-label": "order" },
  make("option", { value: "", title: "the order of the file names" }, "by name"),
  ...Object.entries(start.orders).map(([value, { help }]) =>
    make("option", { value, title: help }, `${value.replaceAll("_", " ")} · ${help}`)));
const size = make("input", { type: "range", min: 64, max: 224, step: 16, value: 112,
  "aria-label": "size of the pictures" });
const count = make("span", { class: "mute count", role: "status" });
const button = (text, action, attributes = {}) =>
  make("button", { onclick: () => attempt(action), ...attributes }, text);
const trash = button("Move to trash", move, { id: "trash", title: "Del" });
const undo = button("Undo", takeBack, { id: "undo", title: "Ctrl Z" });
const sort = button("Rename", () => renaming(by.value, "renaming"),
  { id: "sort", title: "give the files names in this order" });
const queue = button("Queue", enqueue,
  { id: "queue", title: "rename in this order when the jobs before it in the queue are done (see Home)" });
const unsort = button("Undo renaming", () => renaming("undo", "taking the names back"),
  { id: "unsort", title: "give the files the names of before the last renaming" });
const sheets = button("Before / after", () => lookAtSheets(state.side, by.value),
  { id: "sheets", title: "contact sheets by name and in this order; a click enlarges" });
const onward = button("Choose to the end", () =>
  grid.chooseRange(grid.cursor, grid.items.length - 1), { id: "onward", title: "from the marked face on: Shift End" });
const rest = button("Choose all but the first of each group", chooseRest, { id: "rest",
  title: "of near-duplicates: all but the sharpest of each" });
const scroll = make("div", { class: "scroll", tabindex: "0", "aria-label": "faces" });
const canvas = make("canvas", { width: 632, height: 460, "aria-label": "map of yaw and pitch",
  title: "drag to see these poses only, double click for all; or arrows, Shift arrows, Esc" });
const facts = make("table");
const about = make("span", { class: "mute" });
const compare = make("input", { type: "checkbox", "aria-label": "dst poses that src lacks" });
const compared = make("span");
const measure = make("select", { "aria-label": "filter by" },
  make("option", { value: "" }, "nothing"), make("option", { value: "score" }, "detector's score"),
  ...MEASURES.map((value) => make("option", { value }, start.orders[value].value)));

main.append(
  make("div", { class: "bar" }, side, count, make("label", {}, "order", by), sort, queue, unsort, sheets,
    make("span", { class: "space" }), make("label", {}, "size", size), undo, trash),
  make("div", { class: "body" }, scroll, make("aside", {},
    make("div", {}, make("b", {}, "Head poses"), " ", about), canvas,
    make("label", { class: "compare", title: "no face of src, nor its mirror image, is within 12° of yaw and pitch" }, compare, compared),
    make("div", { class: "filter" }, make("label", {}, "filter", measure), onward),
    rest, facts,
    make("div", { class: "keys" },
      make("kbd", {}, "click"), " choose, with ", make("kbd", {}, "Shift"), " a range, ",
      make("kbd", {}, "Ctrl"), " one more · ", make("kbd", {}, "arrows"), " ",
      make("kbd", {}, "Space"), " ", make("kbd", {}, "Ctrl A"), " by keys · ",
      make("kbd", {}, "Shift End"), " from here on · ",
      make("kbd", {}, "Enter"), " or double click enlarges · ", make("kbd", {}, "Del"),
      " to the trash · ", make("kbd", {}, "Ctrl Z"), " takes it back"))));

const range = new RangeFilter(() => show());
facts.before(range.element);

const address = (what, name) =>
  `api/faces/${state.side}/${what}/${encodeURIComponent(name)}?trashed=${state.trashed}` +
  `&v=${state.versions.get(name)}`;
const grid = new Grid(scroll, {
  picture: (name) => address("thumb", name), label,
  changed: () => { tell(); showFacts(); },
});
grid.opened = (name) => enlarge(name);
const map = new PoseMap(canvas, (test) => { state.pose = test; show(); });

async function attempt(action) {
  try { await action(); } catch (error) { say(error.message, true); }
}

async function load() {
  const of = side.value;
  const found = await call(`api/faces/${state.side}?trashed=${state.trashed}`);
  if (of !== side.value) return;
  Object.assign(state, { names: found.names, folder: found.folder });
  state.versions = new Map(found.names.map((name, i) => [name, found.versions[i]]));
  for (const name of grid.chosen) if (!state.versions.has(name)) grid.chosen.delete(name);
  show();
}

// What the number under a picture is: of the order, and if it has none, of the filter.
function label(name) {
  const plain = name.replace(/\.png$/, "");
  const key = state.order?.values ? state.order.by : measure.value;
  const value = measured(key)?.get(name);
  return value === undefined ? plain : `${shortened(value)}${start.orders[key]?.unit ?? ""} · ${plain}`;
}

function measured(key) {
  if (key !== "score") return state.measures[key];
  return new Map(Object.entries(state.poses).map(([name, pose]) => [name, pose[2]]));
}

function shown() {
  let names = state.names;
  if (state.order) {
    const there = new Set(names);
    names = state.order.names.filter((name) => there.has(name));
  }
  if (state.pose) names = names.filter((name) => state.poses[name] && state.pose(state.poses[name]));
  const values = !range.open && measured(measure.value);
  return values ? names.filter((name) => range.lets(values.get(name))) : names;
}

// The groups of the order among `names`; groups of one face at the end are one.
function headings(names) {
  const { groups, index, by } = state.order || {};
  if (!groups) return [];
  const heads = [];
  names.forEach((name, at) => {
    const group = groups[index.get(name)] ?? -1; // files that are no faces have none
    if (heads.at(-1)?.group === group) heads.at(-1).count++;
    else heads.push({ group, first: at, count: 1 });
  });
  const last = heads.findLastIndex((head) => head.count > 1 && head.group >= 0) + 1;
  if (heads.length - last > 1) {
    heads.splice(last, heads.length, { first: heads[last].first, count: names.length - heads[last].first });
  }
  const word = start.orders[by].group;
  for (const head of heads) {
    const title = head.group >= 0 ? `${word} ${head.group + 1}` : "each alone";
    head.text = `${title} · ${head.count} ${head.count === 1 ? "face" : "faces"}`;
  }
  return heads;
}

function chooseRest() {
  grid.chosen = new Set();
  for (const { group, first, count } of grid.heads) {
    if (group >= 0) for (let at = first + 1; at < first + count; at++) grid.chosen.add(grid.items[at]);
  }
  grid.mark();
  tell();
}

function show() {
  const names = shown();
  grid.show(names, headings(names));
  showPoses();
  tell();
}

function tell() {
  const total = state.names.length, seen = grid.items.length, picked = grid.picked.length;
  const part = seen === total ? `${total} faces` : `${seen} of ${total} faces`;
  count.textContent = `${part}, ${picked} chosen`;
  const hidden = grid.chosen.size - picked;
  count.title = hidden ? `${hidden} more are chosen and hidden by the filter; they stay` : "";
  trash.textContent = state.trashed ? "Restore" : "Move to trash";
  trash.disabled = !picked;
  undo.disabled = !state.undo.length || state.trashed;
  sort.disabled = queue.disabled = sheets.disabled = state.trashed || !by.value;
  unsort.disabled = by.disabled = measure.disabled = state.trashed;
  onward.disabled = !seen;
  rest.hidden = !grid.heads.some(({ group, count }) => group >= 0 && count > 1);
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
    const masks = `masks?${new URLSearchParams({ side: state.side, name })}`;
    if (!state.trashed) {
      facts.append(make("tr", {}, make("td", {}, "mask"), make("td", {}, make("a", { href: masks }, "draw"))));
    }
  } catch (error) {
    if (facing !== name) return;
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
  const names = grid.picked;
  if (!names.length) return;
  facing = ""; // or its facts would be asked for when it is gone
  const path = state.trashed ? "api/faces/restore" : "api/faces/trash";
  const done = await call(path, { side: state.side, names });
  if (!state.trashed) state.undo.push(done.names);
  for (const name of names) grid.chosen.delete(name); // those that a filter hides stay chosen
  await load();
  showFacts();
  say(state.trashed ? `${names.length} back` : `${names.length} moved to the trash; Ctrl Z takes it back`);
}

async function takeBack() {
  const names = state.undo.pop();
  if (!names || state.trashed) return;
  try {
    const done = await call("api/faces/restore", { side: state.side, names });
    grid.chosen = new Set(done.names);
    say(`${done.names.length} back`);
  } catch (error) {
    state.undo.push(names);
    throw error;
  }
  await load();
}

// The faces by `key`, or null when the user has chosen something else meanwhile.
async function orderBy(key, still) {
  const of = side.value;
  for (;;) {
    const found = await call("api/faces/order", { side: state.side, by: key });
    if (of !== side.value || !still()) return null;
    if (found.names) {
      if (found.values) {
        state.measures[key] = new Map(found.values.map((value, at) => [found.names[at], value]));
      }
      return { by: key, ...found, index: new Map(found.names.map((name, at) => [name, at])) };
    }
    say(`measuring the faces by ${key} …`);
    await new Promise((done) => setTimeout(done, POLL));
  }
}

async function reorder() {
  state.order = null;
  show();
  if (!by.value) return;
  const wanted = by.value, order = await orderBy(wanted, () => wanted === by.value);
  if (!order) return;
  state.order = order;
  scroll.scrollTop = 0;
  say(`${start.orders[wanted].help}; the files keep their names until you rename them`);
  show();
}

async function remeasure() {
  range.show([], "");
  show();
  const key = measure.value;
  if (!key) return;
  if (!measured(key) && !await orderBy(key, () => key === measure.value)) return;
  const there = state.names.filter((name) => measured(key).has(name));
  range.show(there.map((name) => measured(key).get(name)), start.orders[key]?.unit ?? "");
  show();
}

async function renaming(key, what) {
  await call("api/faces/sort", { side: state.side, by: key });
  state.renaming = true;
  try { await renamed(key, what); } finally { state.renaming = false; }
}

async function renamed(key, what) {
  let job;
  do {
    say(`${what} …`);
    await new Promise((done) => setTimeout(done, POLL));
    job = await call(`api/faces/${state.side}/sorting`);
  } while (job.running);
  const said = job.log.trim().split("\n").pop();
  if (job.code !== 0) say(said, true);
  else if (key === "undo") say("the files have the names of before the last renaming");
  else say(`renamed by ${key}; Undo renaming takes it back`);
  forget();
  await load();
  await readPoses();
}

async function enqueue() {
  await call("api/queue/add", { command: "sort", choices: { side: state.side, by: by.value } });
  say("the renaming is in the queue, on the page Home");
}

// Faces that came or went by other commands, or got other names from the queue.
async function watch() {
  if (document.hidden || state.renaming) return;
  const of = side.value, before = state.versions;
  const { folder } = await call(`api/faces/${state.side}/folder?trashed=${state.trashed}`);
  if (of !== side.value || folder === state.folder || before !== state.versions) return;
  await load();
  const seen = new Set(before.values());
  const other = ([name, version]) => before.get(name) !== version && seen.has(version);
  if ([...state.versions].some(other)) { forget(); show(); }
  await readPoses();
}

// What was known of the names of before.
function forget() {
  Object.assign(state, { order: null, poses: {}, undo: [], measures: {} });
  by.value = measure.value = "";
  range.show([], "");
  grid.chosen.clear();
  facts.replaceChildren();
  facing = "";
}

async function readPoses() {
  const of = side.value;
  if (state.trashed) { state.poses = {}; about.textContent = ""; show(); return; }
  const { poses, missing } = await call(`api/faces/${state.side}/poses`);
  if (of !== side.value) return;
  state.poses = poses;
  about.textContent = missing ? `reading, ${missing} to go` : "";
  if (state.pose) show(); else showPoses();
  if (missing) setTimeout(() => attempt(readPoses), 1500);
}

let comparison = null; // {lacked: poses of dst that src lacks, of: all of them}
function showPoses() {
  const poses = Object.entries(state.poses).filter(([name]) => state.versions.has(name))
    .map(([, pose]) => pose);
  compared.textContent = comparison
    ? `${comparison.lacked.length} of ${comparison.of} dst poses that src lacks` : "dst poses that src lacks";
  map.show(poses, comparison?.lacked);
}

async function comparePoses() {
  const of = side.value;
  comparison = null;
  while (compare.checked && of === side.value) {
    const found = await call("api/poses/lacked");
    if (!compare.checked || of !== side.value) return;
    comparison = found;
    showPoses();
    if (!found.missing) return;
    await new Promise((done) => setTimeout(done, POLL));
  }
  showPoses();
}

side.addEventListener("change", () => {
  forget();
  [state.side, state.trashed] = [side.value.split("-")[0], side.value.endsWith("-trash")];
  Object.assign(state, { names: [], versions: new Map() });
  compare.disabled = state.trashed;
  if (state.trashed) compare.checked = false;
  map.clear(); // shows nothing, until the new names are there
  scroll.scrollTop = 0;
  attempt(async () => { await load(); await readPoses(); await comparePoses(); });
});
by.addEventListener("change", () => attempt(reorder));
measure.addEventListener("change", () => attempt(remeasure));
compare.addEventListener("change", () => attempt(comparePoses));
size.addEventListener("input", () => { grid.side = Number(size.value); grid.layout(); });
main.addEventListener("click", ({ target }) => { // contact sheets as large as they are, and back
  if (target.matches(".look .sheet")) target.parentElement.classList.toggle("enlarged");
});
document.addEventListener("studio-dark", () => { map.draw(); range.draw(); });
document.addEventListener("keydown", (event) => {
  if (studio.typing(event) || document.querySelector(".look")) return;
  const slides = event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key);
  const presses = /^(BUTTON|INPUT|A)$/.test(event.target.tagName) && /^(Enter| )$/.test(event.key);
  if (slides || presses) return;
  if (event.key === "Delete" || event.key === "x") attempt(move);
  else if (event.key === "z" && event.ctrlKey) attempt(takeBack);
  else if (event.key === "Escape") { grid.chosen.clear(); grid.mark(); tell(); }
  else if (event.key === "Enter") { if (grid.items.length) enlarge(grid.items[grid.cursor]); }
  else if (!grid.key(event)) return;
  event.preventDefault();
});

attempt(async () => { await load(); main.dataset.ready = "1"; await readPoses(); });
setInterval(() => attempt(watch), LOOK);
window.faces = { grid, state, map, range }; // for the tests and the bench
