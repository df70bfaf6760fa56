// The manual extractor. A square follows the mouse and the points follow the square; all drawing is
// done here, the server only finds points. A click pins a face, so that its points can be dragged.
import { Board } from "./board.js";
import { Timeline } from "./timeline.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const REST = 25; // milliseconds that the mouse rests before points are asked for
const kept = (...parts) => ["odfs", start.workspace, state.side, ...parts].join(":");

const state = {
  side: start.side, count: 0, noted: {}, queue: [], at: 0,
  frame: -1, // number of the frame that is shown
  square: null, // {x, y, size, points, matrix}: what follows the mouse
  following: true,
  pinned: [], // [{points, matrix, replaces}]
  existing: [], // [{name, points, detector}] in the aligned folder
  trips: [], // milliseconds from the mouse's rest to the points, for the bench
};

const side = make("select", { "aria-label": "side" },
  ...["src", "dst"].map((value) => make("option", { value }, value)));
side.value = start.side;
const show = make("select", { "aria-label": "frames" },
  ...[["doubtful", "doubtful or without a face"], ["empty", "without a face"],
    ["score", "score below"], ["all", "all frames"]].map(([value, text]) =>
    make("option", { value }, text)));
show.value = ["doubtful", "empty", "score", "all"].includes(start.show) ? start.show : "doubtful";
const score = make("input", { type: "number", min: 0, max: 1, step: .01, value: .95,
  "aria-label": "score" });
const where = make("b", { class: "where" });
const why = make("span", { class: "mute" });
const act = (text, action, id) => make("button", { id, onclick: (event) => {
  event.currentTarget.blur();
  attempt(action);
} }, text);
const crop = make("canvas", { width: start.size, height: start.size, class: "crop" });
const list = make("div", { class: "list" });
const canvas = make("canvas", { class: "board", tabindex: "0" });
const strip = make("canvas", { class: "timeline", height: 36 });

main.append(
  make("div", { class: "bar" }, side, make("label", {}, "frames", show), score, where, why,
    make("span", { class: "space" }),
    act("Back", back, "back"), act("Skip", skip, "skip"), act("Accept", accept, "accept")),
  make("div", { class: "body" }, make("div", { class: "stage" }, canvas), make("aside", {},
    make("b", {}, "Aligned face"), crop, make("b", {}, "Faces of this frame"), list,
    make("div", { class: "keys mute" }, ...[
      ["mouse", "moves the square"], ["wheel", "or + − its size"], ["click", "pins the face"],
      ["drag", "a point of it corrects it"], ["click beside it", "begins another"],
      ["Enter", "accepts and goes on; with no face: nobody here"], ["Space", "later"],
      ["Backspace", "goes back"], ["Del", "removes the last face"],
    ].map(([key, what]) => make("div", {}, make("kbd", {}, key), " ", what))))),
  strip);
document.querySelector("#accept").classList.add("primary");

const board = new Board(canvas, state);
const timeline = new Timeline(strip, state, (number) => attempt(() => open(number)));

async function attempt(action) {
  try { return await action(); } catch (error) { say(error.message, true); }
}

// ---- which frames ----

async function load() {
  const of = state.side;
  for (;;) {
    const found = await call(`/api/frames/${of}`);
    if (of !== state.side) return;
    Object.assign(state, found);
    if (!found.missing) break;
    where.textContent = `reading ${found.missing} faces …`;
    await new Promise((done) => setTimeout(done, 500));
  }
  requeue();
  timeline.draw();
}

function wanted(number) {
  const note = state.noted[number];
  if (show.value === "all") return true;
  if (!note) return show.value !== "score"; // nothing is known of it
  const [faces, least, doubtful] = note;
  if (show.value === "score") return faces > 0 && least < Number(score.value);
  return show.value === "empty" ? faces === 0 && doubtful : doubtful;
}

// Made once: a frame that was accepted stays in it, so that going back finds it.
function requeue() {
  state.queue = [];
  for (let i = 0; i < state.count; i++) if (wanted(i)) state.queue.push(i);
  tell();
}

function tell() {
  score.style.display = show.value === "score" ? "" : "none";
  const total = state.queue.length;
  where.textContent = total ? `frame ${state.frame} · ${state.at + 1} of ${total}` : "no such frame";
  why.textContent = state.noted[state.frame]?.[3] || "";
  list.replaceChildren(
    ...state.existing.map((face) => make("div", {}, `${face.name} (${face.detector})`)),
    ...state.pinned.map((face) => make("div", { class: "new" },
      face.replaces ? `instead of ${face.replaces}` : "new face")));
  board.draw();
  drawCrop();
}

async function open(number) {
  const at = state.queue.indexOf(number);
  if (at < 0) { state.queue.push(number); state.queue.sort((a, b) => a - b); }
  await go(state.queue.indexOf(number));
}

async function go(at) {
  if (!state.queue.length) { tell(); return; }
  state.at = Math.max(0, Math.min(state.queue.length - 1, at));
  const number = state.queue[state.at];
  state.frame = number;
  localStorage.setItem(kept("at"), number);
  const size = state.square?.size;
  Object.assign(state, { square: null, following: true, existing: [], pinned: draft() });
  const address = (n) => `/api/frames/${state.side}/${n}`;
  const image = new Image();
  image.src = address(number);
  const [{ faces }] = await Promise.all([call(`${address(number)}/faces`), image.decode()]);
  if (state.frame !== number) return;
  const replaced = new Set(state.pinned.map((face) => face.replaces));
  state.existing = faces.filter((face) => !replaced.has(face.name));
  board.show(image, size);
  timeline.draw();
  tell();
  main.dataset.frame = number;
  const next = state.queue[state.at + 1];
  if (next !== undefined) new Image().src = address(next); // the server has it decoded then
}

// ---- the square and its points ----

let timer = 0, asking = false, again = false;

function moved() {
  clearTimeout(timer);
  timer = setTimeout(ask, REST);
  state.rest = performance.now();
  board.draw();
}

// One question at a time; while it is answered, the mouse may have gone on.
async function ask() {
  if (asking) { again = true; return; }
  const { square, frame, rest } = state;
  if (!square || !state.following) return;
  asking = true;
  const { x, y, size } = square;
  try {
    const found = await call("/api/landmarks", { side: state.side, frame, x, y, size });
    if (state.frame === frame && state.square === square) {
      Object.assign(square, found, { of: { x, y, size } });
      if (rest === state.rest) state.trips.push(performance.now() - rest);
      board.draw();
      drawCrop();
    }
  } catch (error) {
    if (state.square === square) square.points = null;
    if (!/no face/.test(error.message)) say(error.message, true);
  } finally {
    asking = false;
    if (again) { again = false; ask(); }
  }
}

const current = () => state.following ? state.square : state.pinned.at(-1);

function drawCrop() {
  const pen = crop.getContext("2d");
  pen.resetTransform();
  pen.clearRect(0, 0, crop.width, crop.height);
  const face = current();
  if (!face?.matrix || !board.image) return;
  const [[a, c, e], [b, d, f]] = face.matrix;
  pen.setTransform(a, b, c, d, e + .5 - (a + c) / 2, f + .5 - (b + d) / 2); // pixel centers
  pen.imageSmoothingQuality = "high";
  pen.drawImage(board.image, 0, 0);
}

async function settled() {
  while (asking || timer && state.square && performance.now() - state.rest < REST + 5) {
    await new Promise((done) => setTimeout(done, 10));
  }
}

async function pin() {
  await settled();
  if (!state.square?.points) return;
  const { points, matrix } = state.square;
  state.pinned.push({ points: points.map((p) => [...p]), matrix });
  state.following = false;
  keepDraft();
  tell();
}

async function realign(face) {
  const { matrix } = await call("/api/align", face.points);
  face.matrix = matrix;
  drawCrop();
}

// ---- what the mouse does ----

let dragged = null;

canvas.addEventListener("pointermove", (event) => {
  const at = board.at(event);
  if (dragged) {
    dragged.face.points[dragged.index] = at;
    clearTimeout(dragged.timer);
    dragged.timer = setTimeout((face) => attempt(() => realign(face)), REST, dragged.face);
    board.draw();
  } else if (state.following) {
    const size = state.square?.size || board.size;
    state.square = { ...state.square, x: at[0], y: at[1], size };
    moved();
  } else {
    board.hover(at);
  }
});

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.focus();
  const at = board.at(event), hit = board.pointAt(at);
  if (hit) {
    dragged = hit;
    canvas.setPointerCapture(event.pointerId);
    return;
  }
  const old = state.existing.find((face) => board.isIn(face, at));
  if (old) edit(old);
  else if (state.following) attempt(pin);
  else {
    state.following = true;
    state.square = { x: at[0], y: at[1], size: board.size };
    moved();
    tell();
  }
});

canvas.addEventListener("pointerup", () => {
  if (!dragged) return;
  const { face } = dragged;
  dragged = null;
  keepDraft();
  attempt(() => realign(face));
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  resize(event.deltaY < 0 ? 1.08 : 1 / 1.08);
}, { passive: false });

function resize(factor) {
  if (!state.following || !state.square) return;
  const size = Math.max(8, Math.min(20000, state.square.size * factor));
  board.size = size;
  state.square = { ...state.square, size };
  moved();
}

// A face of the aligned folder becomes one that can be changed; accepting puts it in its place.
function edit(face) {
  state.existing = state.existing.filter((other) => other !== face);
  state.pinned.push({ points: face.points.map((p) => [...p]), replaces: face.name });
  state.following = false;
  attempt(() => realign(state.pinned.at(-1)));
  tell();
}

// ---- what the keys do ----

async function accept() {
  await settled();
  const single = state.following && !state.pinned.length && state.square?.points;
  const faces = single ? [state.square] : state.pinned;
  const { names } = await call("/api/accept", {
    side: state.side, frame: state.frame, faces: faces.map((face) => face.points),
    replaced: faces.map((face) => face.replaces).filter(Boolean),
  });
  localStorage.removeItem(kept("draft", state.frame));
  const count = names.length + state.existing.length;
  state.noted[state.frame] = [count, 1, false, ""];
  say(names.length ? `frame ${state.frame}: ${names.join(", ")}` : `frame ${state.frame}: nobody`);
  await onward();
}

async function onward() {
  if (state.at + 1 < state.queue.length) await go(state.at + 1);
  else { await go(state.at); say("that was the last of these frames"); }
}

async function skip() { await onward(); }
async function back() { await go(state.at - 1); }

async function remove() {
  if (state.pinned.length) {
    const { replaces } = state.pinned.pop();
    state.following = true;
    keepDraft();
    if (replaces) await trash(replaces);
  } else if (state.existing.length) {
    await trash(state.existing.pop().name);
  }
  tell();
}

async function trash(name) {
  await call("/api/faces/trash", { side: state.side, names: [name] });
  say(`${name} moved to the trash`);
}

document.addEventListener("keydown", (event) => {
  if (studio.typing(event)) return;
  const keys = {
    Enter: accept, " ": skip, Backspace: back, Delete: remove,
    "+": () => resize(1.08), "=": () => resize(1.08), "-": () => resize(1 / 1.08),
    Escape: () => { state.square = null; state.following = true; tell(); },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  attempt(keys[event.key]);
});

// ---- autosave: faces that are pinned and not yet accepted outlive the page and the studio ----

function keepDraft() {
  localStorage.setItem(kept("draft", state.frame), JSON.stringify(state.pinned));
}

function draft() {
  try {
    return JSON.parse(localStorage.getItem(kept("draft", state.frame))) || [];
  } catch {
    return [];
  }
}

side.addEventListener("change", () => attempt(async () => {
  Object.assign(state, { side: side.value, frame: -1, queue: [], at: 0, noted: {} });
  await begin();
}));
for (const field of [show, score]) {
  field.addEventListener("change", () => attempt(async () => {
    Object.assign(state, { queue: [], at: 0 });
    requeue();
    await go(0);
  }));
}

async function begin() {
  await load();
  const last = Number(localStorage.getItem(kept("at")) ?? -1);
  await go(Math.max(0, state.queue.indexOf(last)));
  main.dataset.ready = "1";
}

attempt(begin);
window.extract = { state, board }; // for the tests and the bench
