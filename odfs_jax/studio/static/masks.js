// What of an aligned face is face, and what hides it: polygons, a brush, or as a network sees it. Each change is
// written at once. All in pixels of the picture, whose centers are integers.
import { Board } from "./board.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const NEAR = 9; // screen pixels within which a point or an edge is under the mouse
const ZOOM = 1.25; // of a click of the wheel
const FINEST = 512; // pixels a side of a mask that is painted anew
const LOOK = 300; // milliseconds between two questions for what a network sees
const COLORS = { true: "#39ff6a", false: "#ff5a5a" }; // of what is face, of what hides it

const state = {
  side: start.side, at: 0, all: [], versions: new Map(),
  names: [], // as they are gone through: by name, or the most doubtful first
  doubt: null, // {name: share of the mask that a network sees in another way}
  looking: false, // for that
  face: null, // {name, version, polygons: [{include, points}], mask, maker}
  open: null, // the polygon that is being drawn
  include: false, // of the next polygon or stroke
  brush: 0, // its width; 0: polygons are drawn
  chosen: -1, // index of a polygon
  shown: true, // the mask
  past: new Map(), // by name: what Ctrl Z goes back to, the last at the end
};
let image = null, hull = null, base = null; // base: a canvas, white on the face where nothing is drawn
let width = 24; // of the brush, when there is one
let mouse = [-1e6, -1e6], dragged = null, stroke = null, moving = null;

const side = make("select", { "aria-label": "side" },
  ...["src", "dst"].map((value) => make("option", { value }, value)));
side.value = state.side;
const where = make("b", { class: "where", role: "status" });
const slider = make("input", { type: "range", min: 0, "aria-label": "face",
  oninput: () => attempt(() => go(slider.valueAsNumber)) });
const kind = make("select", { "aria-label": "what is drawn" },
  make("option", { value: "" }, "what hides the face"), make("option", { value: "1" }, "what is face"));
const act = (text, action, id, title) => make("button", { id, title, onclick: (event) => {
  event.currentTarget.blur(); // keys are commands again
  attempt(action);
} }, text);
const canvas = make("canvas", { class: "board", tabindex: "0", "aria-label": "the face with its mask" });
const list = make("div", { class: "list" });
const about = make("span", { class: "mute" });
const size = make("input", { type: "range", min: 1, max: 100, "aria-label": "width of the brush", title: "[ and ]",
  oninput: () => { width = size.valueAsNumber; useBrush(true); } });
const wide = make("span", { class: "mute" });
const onto = make("input", { type: "number", min: 1, max: 1000, value: 5, "aria-label": "faces to copy onto",
  title: "so many faces" });
const model = make("select", { "aria-label": "mask network" },
  ...start.models.map((name) => make("option", { value: name }, name)));
const tools = [act("Polygon", () => useBrush(false), "polygon", "b"), act("Brush", () => useBrush(true), "brush", "b")];
const network = [model, act("As it sees this face", askNetwork, "network", "n"), act("", findDoubt, "doubt", "d")];

main.append(
  make("div", { class: "bar" }, side, where, slider, act("Undo", takeBack, "undo", "Ctrl Z")),
  make("div", { class: "body" }, make("div", { class: "stage" }, canvas), make("aside", {},
    make("div", { class: "row" }, ...tools, make("label", {}, "width", size, wide)), kind,
    make("b", {}, "Network"), make("div", { class: "row" }, ...network),
    make("b", {}, "Copy"),
    make("div", { class: "row" }, act("From before", copy, "copy", "c"),
      act("Onto the next", copyOn, "onto", "v"), onto),
    make("div", { class: "row" }, make("b", {}, "Mask"), about),
    make("div", { class: "row" }, act("Back to the hull of the points", useHull, "hull", "h")),
    list,
    make("p", { class: "mute" }, "Red is hidden. Polygons of what is face replace the mask; polygons of what hides it " +
      "are taken off. Each change is written into the PNG at once."),
    make("details", { class: "keys mute", open: "" }, make("summary", {}, "Keys"), ...[
      ["click", "sets the points of a polygon"], ["Enter", "or a click on the first closes it"],
      ["drag", "moves a point; paints with the brush"], ["click on an edge", "adds a point"],
      ["Del", "the point under the mouse, or the polygon"],
      ["Esc", "drops what is being drawn"], ["b", "brush or polygon"], ["[ ]", "or the wheel: its width"],
      ["x", "face or what hides it"], ["Ctrl Z", "takes back"], ["n", "as the network sees it"],
      ["h", "the hull"], ["d", "the most doubtful first"], ["c v", "copy"],
      ["m", "shows or hides the mask"], ["← →", "other faces"], ["Shift arrows", "move the cross"],
      ["Space", "clicks there"], ["Ctrl wheel", "zooms"], ["Shift drag", "moves"], ["0", "all of the face"],
    ].map(([key, what]) => make("div", {}, make("kbd", {}, key), " ", what))))));

async function attempt(action) {
  try { await action(); } catch (error) { say(error.message, true); }
}

const address = (name) => `${state.side}/${encodeURIComponent(name)}`;
const kept = () => ["odfs", start.workspace, state.side, "masks"].join(":"); // where the browser keeps the place
const name = () => state.names[state.at];

async function load(wanted) {
  const of = state.side, found = await call(`api/faces/${of}`);
  if (of !== state.side) return;
  state.all = state.names = found.names;
  state.versions = new Map(found.names.map((each, i) => [each, found.versions[i]]));
  slider.max = Math.max(0, state.names.length - 1);
  await go(Math.max(0, state.names.indexOf(wanted)));
  main.dataset.ready = "1";
}

async function picture(source) {
  const found = new Image();
  found.src = source;
  await found.decode();
  return found;
}

async function go(at) {
  close(); // what has been begun is not lost
  await saving;
  state.at = Math.max(0, Math.min(state.names.length - 1, at));
  Object.assign(state, { face: null, open: null, chosen: -1 });
  const shown = name();
  if (!shown) { [image, hull, base] = [null, null, null]; tell(); return; }
  localStorage.setItem(kept(), shown);
  const [face, ...pictures] = await Promise.all([call(`api/masks/${address(shown)}`),
    picture(`api/faces/${state.side}/image/${encodeURIComponent(shown)}?v=${state.versions.get(shown)}`),
    picture(`api/masks/${address(shown)}/hull`)]);
  if (shown !== name()) return;
  state.face = { name: shown, ...face };
  [image, hull] = pictures;
  await rebase();
  if (shown !== name()) return;
  board.show(image);
  tell();
  main.dataset.shown = shown;
}

// `base` as the face's mask has it, or else its hull.
async function rebase() {
  const { mask } = state.face, of = state.face;
  const found = mask ? await picture(`data:image/png;base64,${mask}`) : hull;
  if (of !== state.face) return;
  const scale = mask ? 1 : Math.min(1, FINEST / Math.max(hull.width, hull.height));
  base = make("canvas", { width: Math.round(found.width * scale), height: Math.round(found.height * scale) });
  base.getContext("2d", { willReadFrequently: true }).drawImage(found, 0, 0, base.width, base.height);
}

// ---- changes ----

const copyOf = (polygons) => polygons.map(({ include, points }) => ({ include, points: points.map((p) => [...p]) }));
const drawnOf = ({ polygons, mask, maker }) => ({ polygons: copyOf(polygons), mask, maker });

function remember(before = drawnOf(state.face), of = state.face.name) {
  if (!state.past.has(of)) state.past.set(of, []);
  state.past.get(of).push(before);
}

let saving = Promise.resolve();

// One after the other: each is written on top of the version that the one before has left.
function save() {
  const { face } = state, drawn = drawnOf(face), of = address(face.name);
  saving = saving.then(() => attempt(async () => {
    const { version } = await call(`api/masks/${of}`, { version: face.version, ...drawn });
    face.version = version;
    state.versions.set(face.name, version);
    main.dataset.saved = `${Number(main.dataset.saved || 0) + 1}`;
  }));
  tell();
}

function change(action) {
  if (!state.face) return;
  remember();
  action(state.face.polygons);
  save();
}

// Another mask below the polygons; null: none, so that the hull counts.
async function setMask(mask) {
  if (!state.face) return;
  remember();
  Object.assign(state.face, { polygons: [], mask, maker: mask && start.by_hand });
  state.chosen = -1;
  await rebase();
  save();
}

async function useHull() { await setMask(null); }

async function askNetwork() {
  if (!model.value) return;
  const of = name(), { mask } = await call(`api/masks/${address(of)}/network`, { model: model.value });
  if (of === name()) await setMask(mask);
}

function close() {
  const { open } = state;
  if (!open) return;
  state.open = null;
  if (open.points.length < 3) { tell(); return; }
  change((polygons) => { state.chosen = polygons.push(open) - 1; });
}

async function takeBack() {
  if (state.open) {
    state.open.points.pop();
    if (!state.open.points.length) state.open = null;
    tell();
    return;
  }
  const before = state.face && state.past.get(state.face.name)?.pop();
  if (!before) return;
  Object.assign(state.face, before);
  state.chosen = -1;
  await rebase();
  save();
}

const isDrawn = ({ polygons, maker }) => polygons.length || maker === start.by_hand;

async function copy() {
  const of = name(), before = state.all[state.all.indexOf(of) - 1];
  if (!before || !state.face) throw new Error("there is no face before this one");
  const found = await call(`api/masks/${address(before)}`);
  if (of !== name()) return;
  if (!isDrawn(found)) throw new Error("nothing is drawn on the face before");
  remember();
  state.face.polygons.push(...found.polygons);
  if (found.maker === start.by_hand) Object.assign(state.face, { mask: found.mask, maker: found.maker });
  await rebase();
  save();
}

// What is drawn here onto the faces that follow by name, as far as nothing is drawn on them.
async function copyOn() {
  await saving;
  const { face } = state, from = state.all.indexOf(face?.name) + 1;
  if (!face || !isDrawn(face)) throw new Error("nothing is drawn on this face");
  const others = state.all.slice(from, from + onto.valueAsNumber);
  let done = 0;
  for (const other of others) {
    const found = await call(`api/masks/${address(other)}`);
    if (isDrawn(found)) continue;
    const { polygons, mask, maker } = drawnOf(face), own = maker === start.by_hand ? { mask, maker } : {};
    remember(drawnOf(found), other);
    const { version } = await call(`api/masks/${address(other)}`, { ...found, polygons, ...own });
    state.versions.set(other, version);
    done += 1;
  }
  const left = others.length - done;
  say(`copied onto ${done} faces${left ? `; ${left} have drawings of their own` : ""}; Ctrl Z takes it back on each`);
}

function toggle() {
  const polygon = state.brush ? null : state.open || state.face?.polygons[state.chosen];
  state.include = !(polygon || state).include;
  kind.value = state.include ? "1" : "";
  if (polygon && polygon !== state.open) change(() => { polygon.include = state.include; });
  else if (polygon) polygon.include = state.include;
  board.draw();
}

function remove() {
  const hit = pointAt(mouse);
  if (!hit && !state.face?.polygons[state.chosen]) return;
  change((polygons) => {
    const index = hit ? hit.polygon : state.chosen;
    if (hit && polygons[index].points.length > 3) polygons[index].points.splice(hit.point, 1);
    else { polygons.splice(index, 1); state.chosen = -1; }
  });
}

// ---- the brush ----

function useBrush(on) {
  if (on) close();
  state.brush = on ? width : 0;
  tell();
}

function widen(factor) {
  width = Math.max(1, Math.min(Number(size.max), Math.round(width * factor + Math.sign(factor - 1))));
  useBrush(true);
}

// A stroke is painted into the mask; polygons become a part of it first.
function beginStroke(place) {
  stroke = { before: drawnOf(state.face), last: place };
  const { polygons } = state.face;
  if (polygons.length) {
    const area = areaOf(polygons), pen = base.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, base.width, base.height);
    pen.drawImage(area, 0, 0, base.width, base.height);
    Object.assign(state.face, { polygons: [] });
    state.chosen = -1;
    say("the polygons are a part of the painted mask now");
  }
  paintTo(place);
}

function paintTo(place) {
  const pen = base.getContext("2d"), k = base.width / image.width;
  pen.setTransform(k, 0, 0, k, k / 2, k / 2);
  Object.assign(pen, { lineCap: "round", lineWidth: width, strokeStyle: state.include ? "#fff" : "#000" });
  pen.beginPath();
  pen.moveTo(...stroke.last);
  pen.lineTo(place[0], place[1] + 1e-3); // a dab, too, is a line
  pen.stroke();
  pen.resetTransform();
  stroke.last = place;
  board.draw();
}

function endStroke() {
  remember(stroke.before);
  stroke = null;
  Object.assign(state.face, { mask: base.toDataURL().split(",")[1], maker: start.by_hand });
  save();
}

// ---- the most doubtful first ----

async function findDoubt() {
  if (state.looking) { state.looking = false; return; } // with what has been seen so far
  const shown = name(), of = state.side;
  if (state.doubt) {
    Object.assign(state, { doubt: null, names: state.all });
    await go(state.names.indexOf(shown));
    return;
  }
  state.looking = true;
  let found;
  try {
    for (;;) {
      found = await call(`api/doubt/${of}`, { model: model.value });
      if (of !== state.side) return;
      tell(`the network has seen ${state.all.length - found.missing} of ${state.all.length}`);
      if (!found.missing || !state.looking) break;
      await new Promise((done) => setTimeout(done, LOOK));
    }
  } finally {
    state.looking = false;
    tell();
  }
  const { doubt } = found;
  Object.assign(state, { doubt, names: [...state.all].sort((a, b) => (doubt[b] ?? -1) - (doubt[a] ?? -1)) });
  await go(0);
}

// ---- the mouse ----

const away = ([a, b], [x, y]) => Math.hypot(a - x, b - y);

function pointAt(place) {
  let best = null, least = NEAR / board.scale;
  state.face?.polygons.forEach(({ points }, polygon) => points.forEach((point, index) => {
    if (away(point, place) < least) { least = away(point, place); best = { polygon, point: index }; }
  }));
  return best;
}

// The edge under the mouse: {polygon, point: the index that a point between its ends gets}.
function edgeAt(place) {
  let best = null, least = NEAR / board.scale;
  state.face?.polygons.forEach(({ points }, polygon) => points.forEach((from, index) => {
    const to = points[(index + 1) % points.length], length = away(from, to) || 1;
    const along = ((place[0] - from[0]) * (to[0] - from[0]) + (place[1] - from[1]) * (to[1] - from[1])) / length ** 2;
    const share = Math.max(0, Math.min(1, along));
    const off = away([from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share], place);
    if (off < least) { least = off; best = { polygon, point: index + 1 }; }
  }));
  return best;
}

function press(place) {
  const { open } = state;
  if (state.brush) { beginStroke(place); return; }
  if (open) {
    if (open.points.length > 2 && away(open.points[0], place) < NEAR / board.scale) close();
    else open.points.push(place);
    tell();
    return;
  }
  const before = drawnOf(state.face), edge = pointAt(place) ? null : edgeAt(place);
  const hit = pointAt(place) || edge;
  if (!hit) {
    state.open = { include: state.include, points: [place] };
    state.chosen = -1;
    tell();
    return;
  }
  state.chosen = hit.polygon;
  dragged = { ...hit, before, moved: Boolean(edge) };
  if (edge) {
    remember(before);
    state.face.polygons[edge.polygon].points.splice(edge.point, 0, place);
  }
  tell();
}

function drag(place) {
  if (stroke) paintTo(place);
  else if (dragged) {
    if (!dragged.moved) { remember(dragged.before); dragged.moved = true; }
    state.face.polygons[dragged.polygon].points[dragged.point] = place;
  }
}

function release() {
  if (stroke) endStroke();
  const changed = dragged?.moved;
  dragged = null;
  if (changed) save();
}

canvas.addEventListener("pointermove", (event) => {
  if (!state.face) return;
  if (moving) {
    board.move(event.clientX - moving.clientX, event.clientY - moving.clientY);
    moving = event;
    return;
  }
  mouse = board.at(event);
  drag(mouse);
  board.draw();
});

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 1 || !state.face) return;
  canvas.focus();
  canvas.setPointerCapture(event.pointerId);
  if (event.button === 1 || event.shiftKey) {
    event.preventDefault();
    moving = event;
    return;
  }
  mouse = board.at(event);
  press(mouse);
});

canvas.addEventListener("pointerup", () => {
  if (moving) moving = null;
  else if (state.face) release();
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const up = event.deltaY < 0;
  if (state.brush && !event.ctrlKey) widen(up ? 1.15 : 1 / 1.15);
  else board.enlarge(up ? ZOOM : 1 / ZOOM, event);
}, { passive: false });

// What the mouse does, by keys: in steps of a hundredth of the face.
function nudge(x, y) {
  if (!state.face) return;
  const step = image.width / 100, [a, b] = mouse;
  const inside = a >= 0 && b >= 0 && a < image.width && b < image.height;
  mouse = inside ? [a + x * step, b + y * step] : [image.width / 2, image.height / 2];
  board.draw();
}

function pressHere() {
  if (!state.face) return;
  press(mouse);
  release();
}

// ---- drawing ----

function tell(seen = "") {
  const { face, names, doubt } = state, share = face && doubt?.[face.name];
  const differs = share === undefined || share === null ? "" : ` · ${Math.round(share * 100)} % differs`;
  where.textContent = seen || (face ? `${face.name} · ${state.at + 1} of ${names.length}${differs}`
    : names.length ? "" : `no aligned faces of ${state.side}`);
  slider.value = state.at;
  slider.disabled = names.length < 2;
  const byId = (id) => document.getElementById(id);
  byId("undo").disabled = !state.open && !(face && state.past.get(face.name)?.length);
  byId("copy").disabled = !face || !state.all.indexOf(face.name);
  byId("onto").disabled = !face || !isDrawn(face);
  byId("hull").disabled = !face || !face.mask && !face.polygons.length;
  byId("brush").classList.toggle("primary", state.brush > 0);
  byId("polygon").classList.toggle("primary", !state.brush);
  size.value = width;
  wide.textContent = `${width} px`;
  byId("doubt").textContent = state.looking ? "Stop looking" : doubt ? "By name again" : "Most doubtful first";
  byId("doubt").title = "d: where the network and what is stored, or the hull, differ most";
  about.textContent = !face ? "" : !face.mask ? "the hull of the points"
    : face.maker === start.by_hand ? "painted by hand" : `of ${face.maker || "an imported face"}`;
  list.replaceChildren(...(face?.polygons || []).map(({ include, points }, index) => make("button", {
    class: index === state.chosen ? "primary" : "", onclick: () => { state.chosen = index; tell(); },
  }, `${include ? "face" : "hides it"}, ${points.length} points`)));
  canvas.hidden = !face;
  board.draw();
}

function outline(pen, points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
}

// White where the commands see face: what is drawn as face, or else the base, less what hides it.
function areaOf(polygons) {
  const { width: w, height: h } = image, area = new OffscreenCanvas(w, h);
  const pen = area.getContext("2d", { willReadFrequently: true });
  pen.translate(.5, .5);
  pen.fillStyle = "#fff";
  if (polygons.some(({ include }) => include)) {
    for (const { include, points } of polygons) if (include) { outline(pen, points); pen.fill(); }
  } else {
    pen.drawImage(base, -.5, -.5, w, h);
    const gray = pen.getImageData(0, 0, w, h);
    for (let i = 0; i < gray.data.length; i += 4) {
      gray.data[i + 3] = gray.data[i];
      gray.data[i] = gray.data[i + 1] = gray.data[i + 2] = 255;
    }
    pen.putImageData(gray, 0, 0);
  }
  pen.globalCompositeOperation = "destination-out";
  for (const { include, points } of polygons) if (!include) { outline(pen, points); pen.fill(); }
  return area;
}

// What is not face, in red.
function hiddenOf(polygons) {
  const area = areaOf(polygons), pen = area.getContext("2d");
  pen.globalCompositeOperation = "source-out";
  pen.fillStyle = "#ff2a2a";
  pen.fillRect(-.5, -.5, area.width, area.height);
  return area;
}

class MaskBoard extends Board {
  paint() {
    if (!state.face || !base || !this.image) return;
    const pen = canvas.getContext("2d"), { polygons } = state.face, { open } = state;
    pen.resetTransform();
    pen.globalAlpha = 1;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (state.shown) {
      pen.globalAlpha = .45;
      const mask = hiddenOf(open?.points.length > 2 ? [...polygons, open] : polygons);
      pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
      pen.globalAlpha = 1;
    }
    const k = canvas.width / image.width, px = (canvas.width / canvas.clientWidth || 1) / k; // a screen pixel
    pen.setTransform(k, 0, 0, k, k / 2, k / 2);
    if (state.brush) { this.ring(pen, px); return; }
    const near = !open && pointAt(mouse);
    [...polygons, ...open ? [open] : []].forEach((polygon, index) => {
      pen.strokeStyle = pen.fillStyle = COLORS[polygon.include];
      pen.lineWidth = (index === state.chosen ? 3 : 1.5) * px;
      outline(pen, polygon === open ? [...polygon.points, mouse] : polygon.points);
      if (polygon !== open) pen.closePath();
      pen.stroke();
      polygon.points.forEach((point, at) => {
        const under = near && near.polygon === index && near.point === at;
        pen.beginPath();
        pen.arc(...point, (under || polygon === open && !at ? 6 : 4) * px, 0, 7);
        pen.fill();
      });
    });
    this.cross(pen, px);
  }

  ring(pen, px) {
    pen.beginPath();
    pen.arc(...mouse, state.brush / 2, 0, 7);
    for (const [color, wide] of [["#000", 4], ["#fff", 2]]) {
      Object.assign(pen, { strokeStyle: color, lineWidth: wide * px });
      pen.stroke();
    }
  }

  cross(pen, px) {
    const [x, y] = mouse, arm = 7 * px;
    pen.beginPath();
    pen.moveTo(x - arm, y); pen.lineTo(x + arm, y);
    pen.moveTo(x, y - arm); pen.lineTo(x, y + arm);
    Object.assign(pen, { strokeStyle: COLORS[state.include], lineWidth: px });
    pen.stroke();
  }
}

const board = new MaskBoard(canvas, state);

// ---- keys ----

function escape() {
  state.open = null;
  state.looking = false;
  tell();
}

const KEYS = {
  Enter: close, Escape: escape, x: toggle, c: copy, v: copyOn, "ctrl z": takeBack,
  b: () => useBrush(!state.brush), "[": () => widen(1 / 1.15), "]": () => widen(1.15),
  n: askNetwork, h: useHull, d: () => model.value && findDoubt(), 0: () => board.showAll(null),
  m: () => { state.shown = !state.shown; board.draw(); }, Delete: remove, Backspace: remove,
  ArrowRight: () => go(state.at + 1), ArrowLeft: () => go(state.at - 1),
  "shift ArrowRight": () => nudge(1, 0), "shift ArrowLeft": () => nudge(-1, 0),
  "shift ArrowUp": () => nudge(0, -1), "shift ArrowDown": () => nudge(0, 1), " ": pressHere,
};
document.addEventListener("keydown", (event) => {
  const onRange = event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key) && !event.shiftKey;
  if (studio.typing(event) || onRange) return;
  if (/^(BUTTON|SUMMARY)$/.test(event.target.tagName) && /^(Enter| )$/.test(event.key)) return; // it is pressed
  const shift = event.shiftKey && event.key.startsWith("Arrow") ? "shift " : "";
  const action = KEYS[`${event.ctrlKey ? "ctrl " : ""}${shift}${event.key}`];
  if (!action) return;
  event.preventDefault();
  attempt(action);
});

kind.addEventListener("change", () => { state.include = kind.value === "1"; board.draw(); });
side.addEventListener("change", () => attempt(async () => {
  await saving;
  Object.assign(state, { side: side.value, all: [], names: [], at: 0, face: null, doubt: null, looking: false,
    past: new Map() });
  await load(localStorage.getItem(kept()));
}));
attempt(() => load(start.face || localStorage.getItem(kept())));
window.masks = { state, board }; // for the tests
