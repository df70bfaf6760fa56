// The manual extractor. A square follows the mouse and the points follow the square; all drawing is
// done here, the server only finds points. A click pins a face, so that its points can be dragged.
import { Board } from "./board.js";
import { Curves } from "./curves.js";
import { Timeline } from "./timeline.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const REST = 25; // milliseconds that the mouse rests before points are asked for
const ZOOM = 1.25; // of a click of the wheel
const SHOWN = { // which frames, and what is said when there are none
  doubtful: ["doubtful or without a face", (count) => `All ${count} frames have a clear face.`],
  empty: ["without a face", (count) => `A face was found in all ${count} frames.`],
  score: ["score below", () => `No frame has a face with a score below ${score.value}.`],
  all: ["all frames", () => "The clip has no frames."],
};
const kept = (...parts) => ["odfs", start.workspace, state.side, ...parts].join(":");

const state = {
  side: start.side, count: 0, noted: {}, queue: [], at: 0,
  frame: -1, // number of the frame that is shown
  square: null, // {x, y, size, points, matrix}: what follows the mouse
  following: true,
  pinned: [], // [{points, matrix, replaces}]
  existing: [], // [{name, points, detector}] in the aligned folder
  past: [], // of this frame: what Ctrl Z goes back to, the last at the end
  trips: [], // milliseconds from the mouse's rest to the points, for the bench
};

const side = make("select", { "aria-label": "side" },
  ...["src", "dst"].map((value) => make("option", { value }, value)));
side.value = start.side;
const show = make("select", { "aria-label": "frames" },
  ...Object.entries(SHOWN).map(([value, [text]]) => make("option", { value }, text)));
const asked = start.show || localStorage.getItem(kept("show"));
show.value = asked in SHOWN ? asked : "doubtful";
const score = make("input", { type: "number", min: 0, max: 1, step: .01, value: .95,
  "aria-label": "score" });
const number = make("input", { type: "number", min: 0, "aria-label": "frame number", onchange: () => {
  number.blur(); // keys are commands again
  if (number.value) attempt(() => open(Math.max(0, Math.min(state.count - 1, number.valueAsNumber))));
} });
const where = make("b", { class: "where", role: "status" });
const why = make("span", { class: "mute" });
const act = (text, action, id) => make("button", { id, onclick: (event) => {
  event.currentTarget.blur();
  attempt(action);
} }, text);
const later = act("Queue extraction", enqueue, "queue");
later.title = "extract.py looks at the frames that it has not seen, when the jobs before it in the queue are done (see Home)";
const crop = make("canvas", { width: start.size, height: start.size, class: "crop", "aria-label": "the aligned face" });
const list = make("div", { class: "list" });
const canvas = make("canvas", { class: "board", tabindex: "0", "aria-label": "the frame with its faces" });
const nothing = make("div", { class: "nothing", hidden: "" });
const curve = make("canvas", { class: "curve", hidden: "", "aria-label": "where a part of the face is over time",
  title: "a click goes to the frame; j: off, J: another part" });
const strip = make("canvas", { class: "timeline", height: 36, "aria-label": "all frames of the clip" });

main.append(
  make("div", { class: "bar" }, side, make("label", {}, "frames", show), score,
    make("label", {}, "frame", number), where, why, make("span", { class: "space" }),
    later, act("Curves", showCurves, "curves"), act("Back", back, "back"), act("Skip", skip, "skip"), act("Accept", accept, "accept")),
  make("div", { class: "body" }, make("div", { class: "stage" }, canvas, nothing), make("aside", {},
    make("b", {}, "Aligned face"), crop, make("b", {}, "Faces of this frame"), list,
    make("div", { class: "keys mute" }, ...[
      ["mouse", "moves the square"], ["wheel", "or + − its size"], ["click", "pins the face"],
      ["drag", "a point of it corrects it"], ["click beside it", "begins another"],
      ["c", "copies the face of the frame before"], ["v", "of the frame after"],
      ["i", "fills the gap between both"], ["Ctrl Z", "takes back"], ["Esc", "drops the last face"],
      ["Enter", "accepts and goes on; with no face: nobody here"],
      ["Shift Enter", "accepts all frames of a filled gap"], ["Space", "later"],
      ["← →", "other frames"], ["j", "curves of the points"], ["J", "of another part"],
      ["Backspace", "goes back"], ["Del", "removes the last face"],
      ["Ctrl wheel", "zooms"], ["Shift drag", "moves"], ["f", "the face"], ["0", "all of the frame"],
    ].map(([key, what]) => make("div", {}, make("kbd", {}, key), " ", what))))),
  curve, strip);
document.querySelector("#accept").classList.add("primary");

const board = new Board(canvas, state);
const timeline = new Timeline(strip, state, (number) => attempt(() => open(number)));
const curves = new Curves(curve, state, (number) => attempt(() => open(number)));

async function attempt(action) {
  try { return await action(); } catch (error) { say(error.message, true); }
}

// ---- which frames ----

async function load() {
  const of = state.side;
  for (;;) {
    const found = await call(`api/frames/${of}`);
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
  later.hidden = Object.keys(state.noted).length >= state.count;
  score.style.display = show.value === "score" ? "" : "none";
  const total = state.queue.length;
  where.textContent = total ? `${state.at + 1} of ${total}` : "";
  if (document.activeElement !== number) number.value = total ? state.frame : "";
  number.max = Math.max(0, state.count - 1);
  tellNothing(!total);
  why.textContent = state.noted[state.frame]?.[3] || "";
  list.replaceChildren(
    ...state.existing.map((face) => make("div", {}, `${face.name} (${face.detector})`)),
    ...state.pinned.map((face) => make("div", { class: "new" },
      face.replaces ? `instead of ${face.replaces}` : "new face")));
  board.draw();
  drawCrop();
}

async function enqueue() {
  await call("api/queue/add", { command: "extract", choices: { side: state.side } });
  say(`the extraction of ${state.side} is in the queue, on the page Home`);
}

function tellNothing(isEmpty) {
  nothing.hidden = !isEmpty || !state.count;
  canvas.hidden = isEmpty;
  for (const id of ["back", "skip", "accept"]) document.getElementById(id).disabled = isEmpty;
  if (nothing.hidden) return;
  nothing.replaceChildren(make("div", {}, SHOWN[show.value][1](state.count)),
    make("button", { id: "all", onclick: () => { show.value = "all"; show.dispatchEvent(new Event("change")); } },
      "Show all frames"));
}

async function open(number) {
  const at = state.queue.indexOf(number);
  if (at < 0) { state.queue.push(number); state.queue.sort((a, b) => a - b); }
  await go(state.queue.indexOf(number));
}

async function go(at) {
  if (!state.queue.length) {
    Object.assign(state, { frame: -1, square: null, existing: [], pinned: [], past: [] });
    board.image = null;
    tell();
    return;
  }
  state.at = Math.max(0, Math.min(state.queue.length - 1, at));
  const number = state.queue[state.at];
  state.frame = number;
  localStorage.setItem(kept("at"), number);
  const size = state.square?.size;
  Object.assign(state, { square: null, existing: [], past: [], pinned: draft() });
  state.following = !state.pinned.length;
  const address = (n) => `api/frames/${state.side}/${n}`;
  const image = new Image();
  image.src = address(number);
  const [{ faces }] = await Promise.all([call(`${address(number)}/faces`), image.decode()]);
  if (state.frame !== number) return;
  const replaced = new Set(state.pinned.map((face) => face.replaces));
  for (const face of state.pinned) face.old = faces.find((other) => other.name === face.replaces);
  state.existing = faces.filter((face) => !replaced.has(face.name));
  board.show(image, size);
  timeline.draw();
  curves.draw();
  tell();
  for (const face of state.pinned) if (!face.matrix) attempt(() => realign(face));
  main.dataset.frame = number;
  const next = state.queue[state.at + 1];
  if (next !== undefined) new Image().src = address(next); // the server has it decoded then
}

// ---- the points over time ----

async function showCurves() {
  curve.hidden = !curve.hidden;
  await readCurves();
}

async function readCurves() {
  const of = state.side;
  while (!curve.hidden && of === state.side) {
    const { rows, missing } = await call(`api/points/${of}`);
    if (of !== state.side) return;
    curves.rows = rows;
    curves.draw();
    main.dataset.curves = missing;
    if (!missing) return;
    await new Promise((done) => setTimeout(done, 500));
  }
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
    const found = await call("api/landmarks", { side: state.side, frame, x, y, size });
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
  remember();
  state.pinned.push({ points: points.map((p) => [...p]), matrix });
  state.following = false;
  keepDraft();
  tell();
}

async function realign(face) {
  const { matrix } = await call("api/align", face.points);
  face.matrix = matrix;
  drawCrop();
}

// ---- what the mouse does ----

let dragged = null, moving = null;

canvas.addEventListener("pointermove", (event) => {
  if (!board.image) return;
  const at = board.at(event);
  if (moving) {
    board.move(event.clientX - moving.clientX, event.clientY - moving.clientY);
    moving = event;
  } else if (dragged) {
    if (!dragged.moved) { remember(); dragged.moved = true; }
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
  if (!board.image || event.button > 1) return;
  canvas.focus();
  if (event.button === 1 || event.shiftKey) {
    event.preventDefault();
    moving = event;
    canvas.setPointerCapture(event.pointerId);
    return;
  }
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
  moving = null;
  if (!dragged) return;
  const { face, moved, timer } = dragged;
  dragged = null;
  if (!moved) return;
  clearTimeout(timer);
  keepDraft();
  attempt(() => realign(face));
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const up = event.deltaY < 0;
  if (event.ctrlKey || !state.following) board.enlarge(up ? ZOOM : 1 / ZOOM, event);
  else resize(up ? 1.08 : 1 / 1.08);
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
  remember();
  state.existing = state.existing.filter((other) => other !== face);
  state.pinned.push({ points: face.points.map((p) => [...p]), replaces: face.name, old: face });
  state.following = false;
  attempt(() => realign(state.pinned.at(-1)));
  tell();
}

// ---- taking back ----

// Before a change: what Ctrl Z goes back to. `trashed` is {was, now}: the names of a face that went.
function remember(trashed) {
  const { pinned, existing, following } = state;
  state.past.push({ pinned: structuredClone(pinned), existing: [...existing], following, trashed });
}

async function takeBack() {
  const before = state.past.pop();
  if (!before) return;
  const { pinned, existing, following, trashed } = before;
  if (trashed) {
    const { names } = await call("api/faces/restore", { side: state.side, names: [trashed.now] });
    for (const face of existing) if (face.name === trashed.was) face.name = names[0];
    for (const face of pinned) if (face.replaces === trashed.was) face.replaces = face.old.name = names[0];
    say(`${names[0]} is back`);
  }
  Object.assign(state, { pinned, existing, following });
  keepDraft();
  tell();
}

// Drops a face that was begun, or else the last one that is not accepted, with its draft. A face of
// the aligned folder that was being changed is as it was.
function drop() {
  const begun = state.following && state.square && state.pinned.length;
  state.square = null;
  if (begun) state.following = false;
  else if (state.pinned.length) {
    remember();
    const { old } = state.pinned.pop();
    if (old) state.existing.push(old);
    state.following = !state.pinned.length;
    keepDraft();
  }
  tell();
}

// ---- faces of other frames ----

// The nearest frame before (-1) or after (1) this one that has faces: {frame, faces}.
async function neighbor(step) {
  for (let frame = state.frame + step; frame >= 0 && frame < state.count; frame += step) {
    if (!state.noted[frame]?.[0]) continue;
    const { faces } = await call(`api/frames/${state.side}/${frame}/faces`);
    if (faces.length) return { frame, faces };
  }
  throw new Error(`no frame ${step < 0 ? "before" : "after"} this one has a face`);
}

async function copy(step) {
  const { frame } = state, found = await neighbor(step);
  if (frame !== state.frame) return;
  remember();
  const copied = found.faces.map(({ points }) => ({ points }));
  state.pinned.push(...copied);
  state.following = false;
  keepDraft();
  tell();
  say(`as in frame ${found.frame}; drag its points, Enter accepts`);
  await Promise.all(copied.map(realign));
}

// The faces of the nearest frames before and after, moved evenly from one to the other, become the
// drafts of all frames between.
async function fill() {
  const of = state.frame;
  const [before, after] = await Promise.all([neighbor(-1), neighbor(1)]);
  if (of !== state.frame) return;
  const pairs = before.faces.map((face) => [face, nearest(face, after.faces)]);
  const frames = [];
  for (let frame = before.frame + 1; frame < after.frame; frame++) {
    const note = state.noted[frame]; // nobody is there when somebody has said so
    if (frame !== of && (draft(frame).length || note && !note[2])) continue;
    const share = (frame - before.frame) / (after.frame - before.frame);
    const faces = pairs.map(([a, b]) => ({ points: a.points.map((point, at) =>
      point.map((value, axis) => value + (b.points[at][axis] - value) * share)) }));
    frames.push(frame);
    if (frame === of) {
      remember();
      Object.assign(state, { pinned: faces, following: false });
    }
    localStorage.setItem(kept("draft", frame), JSON.stringify(faces));
    if (!state.queue.includes(frame)) state.queue.push(frame);
  }
  state.queue.sort((a, b) => a - b);
  state.at = state.queue.indexOf(of);
  tell();
  say(`${frames.length} frames filled between ${before.frame} and ${after.frame}; ` +
    "Enter accepts one, Shift Enter all");
  await Promise.all(state.pinned.map(realign));
}

function nearest(face, others) {
  const middle = ({ points }) => [0, 1].map((axis) =>
    points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const [x, y] = middle(face);
  const away = (other) => Math.hypot(middle(other)[0] - x, middle(other)[1] - y);
  return others.reduce((best, other) => away(other) < away(best) ? other : best);
}

// ---- what the keys do ----

async function accept() {
  await settled();
  const single = state.following && !state.pinned.length && state.square?.points;
  const faces = single ? [state.square] : state.pinned;
  const { names } = await call("api/accept", {
    side: state.side, frame: state.frame, faces: faces.map((face) => face.points),
    replaced: faces.map((face) => face.replaces).filter(Boolean),
  });
  localStorage.removeItem(kept("draft", state.frame));
  const count = names.length + state.existing.length;
  state.noted[state.frame] = [count, 1, false, ""];
  say(names.length ? `frame ${state.frame}: ${names.join(", ")}` : `frame ${state.frame}: nobody`);
  attempt(readCurves);
  await onward();
}

async function onward() {
  if (state.at + 1 < state.queue.length) await go(state.at + 1);
  else { await go(state.at); say("that was the last of these frames"); }
}

// Accepts frame after frame, as long as the next one has faces that wait for it.
async function acceptAll() {
  for (;;) {
    const { frame } = state;
    await accept();
    if (state.frame === frame || !state.pinned.length || state.frame !== frame + 1) return;
  }
}

async function skip() { await onward(); }
async function back() { await go(state.at - 1); }

async function remove() {
  const pinned = state.pinned.at(-1), name = pinned ? pinned.replaces : state.existing.at(-1)?.name;
  if (!pinned && !name) return;
  let trashed;
  if (name) {
    const { names } = await call("api/faces/trash", { side: state.side, names: [name] });
    trashed = { was: name, now: names[0] };
    say(`${name} moved to the trash; Ctrl Z takes it back`);
  }
  remember(trashed);
  (pinned ? state.pinned : state.existing).pop();
  state.following = true;
  keepDraft();
  tell();
}

const KEYS = {
  Enter: accept, "shift Enter": acceptAll, " ": skip, Backspace: back, Delete: remove, Escape: drop,
  ArrowRight: onward, ArrowLeft: back, "ctrl z": takeBack,
  j: showCurves, J: () => curves.next(), c: () => copy(-1), v: () => copy(1), i: fill,
  f: () => board.showAll((state.pinned.at(-1) || state.existing.at(-1) || state.square)?.points),
  0: () => board.showAll(null),
  "+": () => resize(1.08), "=": () => resize(1.08), "-": () => resize(1 / 1.08),
};

document.addEventListener("keydown", (event) => {
  if (studio.typing(event)) return;
  if (event.target.tagName === "BUTTON" && /^(Enter| )$/.test(event.key)) return; // it is pressed
  const shift = event.shiftKey && event.key === "Enter" ? "shift " : "";
  const action = KEYS[`${event.ctrlKey ? "ctrl " : ""}${shift}${event.key}`];
  if (!action || !board.image) return;
  event.preventDefault();
  attempt(action);
});

// ---- autosave: faces that are pinned and not yet accepted outlive the page and the studio ----

function keepDraft() {
  if (state.pinned.length) localStorage.setItem(kept("draft", state.frame), JSON.stringify(state.pinned));
  else localStorage.removeItem(kept("draft", state.frame));
}

function draft(frame = state.frame) {
  try {
    return JSON.parse(localStorage.getItem(kept("draft", frame))) || [];
  } catch {
    return [];
  }
}

side.addEventListener("change", () => attempt(async () => {
  Object.assign(state, { side: side.value, frame: -1, queue: [], at: 0, noted: {} });
  curve.hidden = true;
  await begin();
}));
for (const field of [show, score]) {
  field.addEventListener("change", () => attempt(async () => {
    const { frame } = state;
    localStorage.setItem(kept("show"), show.value);
    history.replaceState(null, "", `?${new URLSearchParams({ side: state.side, show: show.value })}`);
    requeue();
    await go(Math.max(0, state.queue.indexOf(frame)));
  }));
}

async function begin() {
  await load();
  const last = Number(localStorage.getItem(kept("at")) ?? -1);
  await go(Math.max(0, state.queue.indexOf(last)));
  main.dataset.ready = "1";
}

attempt(begin);
window.extract = { state, board, curves }; // for the tests and the bench
