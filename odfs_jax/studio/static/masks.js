// Polygons on an aligned face: what of it is face, and what hides it. Each change is written at once.
const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const NEAR = 9; // screen pixels within which a point or an edge is under the mouse
const COLORS = { true: "#39ff6a", false: "#ff5a5a" }; // of what is face, of what hides it

const state = {
  side: start.side, names: [], versions: new Map(), at: 0,
  face: null, // {name, version, polygons: [{include, points}]}
  open: null, // the polygon that is being drawn
  include: false, // of the next polygon
  chosen: -1, // index of a polygon
  shown: true, // the mask
  past: new Map(), // by name: what Ctrl Z goes back to, the last at the end
};

const side = make("select", { "aria-label": "side" },
  ...["src", "dst"].map((value) => make("option", { value }, value)));
side.value = state.side;
const where = make("b", { class: "where", role: "status" });
const slider = make("input", { type: "range", min: 0, "aria-label": "face",
  oninput: () => attempt(() => go(slider.valueAsNumber)) });
const kind = make("select", { "aria-label": "what is drawn" },
  make("option", { value: "" }, "what hides the face"), make("option", { value: "1" }, "what is face"));
const act = (text, action, id, title) => make("button", { id, title, onclick: () => attempt(action) }, text);
const canvas = make("canvas", { class: "board", tabindex: "0", "aria-label": "the face with its polygons" });
const list = make("div", { class: "list" });

main.append(
  make("div", { class: "bar" }, side, where, slider, make("label", {}, "draw", kind),
    act("Copy from the face before", copy, "copy", "c"), act("Undo", takeBack, "undo", "Ctrl Z")),
  make("div", { class: "body" }, make("div", { class: "stage" }, canvas), make("aside", {},
    make("b", {}, "Polygons"), list,
    make("p", { class: "mute" }, "Red is hidden. Polygons of what is face replace the network's mask or the hull; " +
      "polygons of what hides it are taken off. Each change is written into the PNG at once."),
    make("div", { class: "keys mute" }, ...[
      ["click", "sets the points of a polygon"], ["Enter", "or a click on its first point closes it"],
      ["drag", "moves a point"], ["click on an edge", "adds a point to it"],
      ["Del", "deletes the point under the mouse, or else the chosen polygon"],
      ["Esc", "drops what is being drawn"], ["x", "face or what hides it"], ["Ctrl Z", "takes back"],
      ["c", "copies from the face before"], ["m", "shows or hides the mask"], ["← →", "other faces"],
    ].map(([key, what]) => make("div", {}, make("kbd", {}, key), " ", what))))));

async function attempt(action) {
  try { await action(); } catch (error) { say(error.message, true); }
}

const address = (name) => `${state.side}/${encodeURIComponent(name)}`;
const name = () => state.names[state.at];

async function load(wanted) {
  const of = state.side, found = await call(`/api/faces/${of}`);
  if (of !== state.side) return;
  state.names = found.names;
  state.versions = new Map(found.names.map((each, i) => [each, found.versions[i]]));
  slider.max = Math.max(0, state.names.length - 1);
  await go(Math.max(0, state.names.indexOf(wanted)));
  main.dataset.ready = "1";
}

let image = null, base = null;

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
  if (!shown) { [image, base] = [null, null]; tell(); return; }
  localStorage.setItem(`odfs:masks:${state.side}`, shown);
  const [face, ...pictures] = await Promise.all([call(`/api/masks/${address(shown)}`),
    picture(`/api/faces/${state.side}/image/${encodeURIComponent(shown)}?v=${state.versions.get(shown)}`),
    picture(`/api/masks/${address(shown)}/base`)]);
  if (shown !== name()) return;
  state.face = { name: shown, ...face };
  [image, base] = pictures;
  tell();
  main.dataset.shown = shown;
}

// ---- changes ----

const copyOf = (polygons) => polygons.map(({ include, points }) => ({ include, points: points.map((p) => [...p]) }));

function remember(before = copyOf(state.face.polygons)) {
  const { name } = state.face;
  if (!state.past.has(name)) state.past.set(name, []);
  state.past.get(name).push(before);
}

let saving = Promise.resolve();

// One after the other: each is written on top of the version that the one before has left.
function save() {
  const { face } = state, polygons = copyOf(face.polygons), of = address(face.name);
  saving = saving.then(() => attempt(async () => {
    const { version } = await call(`/api/masks/${of}`, { version: face.version, polygons });
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

function close() {
  const { open } = state;
  if (!open) return;
  state.open = null;
  if (open.points.length < 3) { tell(); return; }
  change((polygons) => { state.chosen = polygons.push(open) - 1; });
}

function takeBack() {
  if (state.open) {
    state.open.points.pop();
    if (!state.open.points.length) state.open = null;
    tell();
    return;
  }
  const before = state.face && state.past.get(state.face.name)?.pop();
  if (!before) return;
  state.face.polygons = before;
  state.chosen = -1;
  save();
}

async function copy() {
  if (!state.at || !state.face) throw new Error("there is no face before this one");
  const of = name(), { polygons } = await call(`/api/masks/${address(state.names[state.at - 1])}`);
  if (of !== name()) return;
  if (!polygons.length) throw new Error("the face before has no polygons");
  change((own) => own.push(...polygons));
}

function toggle() {
  const polygon = state.open || state.face?.polygons[state.chosen];
  state.include = !(polygon || state).include;
  kind.value = state.include ? "1" : "";
  if (polygon && polygon !== state.open) change(() => { polygon.include = state.include; });
  else if (polygon) polygon.include = state.include;
  draw();
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

// ---- the mouse; all in pixels of the picture, whose centers are integers ----

let mouse = [-1e6, -1e6], dragged = null;
const scale = () => canvas.clientWidth / (image?.width || 1);

function at(event) {
  const { left, top } = canvas.getBoundingClientRect();
  return [(event.clientX - left) / scale() - .5, (event.clientY - top) / scale() - .5];
}

const away = ([a, b], [x, y]) => Math.hypot(a - x, b - y);

function pointAt(place) {
  let best = null, least = NEAR / scale();
  state.face?.polygons.forEach(({ points }, polygon) => points.forEach((point, index) => {
    if (away(point, place) < least) { least = away(point, place); best = { polygon, point: index }; }
  }));
  return best;
}

// The edge under the mouse: {polygon, point: the index that a point between its ends gets}.
function edgeAt(place) {
  let best = null, least = NEAR / scale();
  state.face?.polygons.forEach(({ points }, polygon) => points.forEach((from, index) => {
    const to = points[(index + 1) % points.length], length = away(from, to) || 1;
    const along = ((place[0] - from[0]) * (to[0] - from[0]) + (place[1] - from[1]) * (to[1] - from[1])) / length ** 2;
    const share = Math.max(0, Math.min(1, along));
    const off = away([from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share], place);
    if (off < least) { least = off; best = { polygon, point: index + 1 }; }
  }));
  return best;
}

canvas.addEventListener("pointermove", (event) => {
  mouse = at(event);
  if (dragged) {
    if (!dragged.moved) { remember(dragged.before); dragged.moved = true; }
    state.face.polygons[dragged.polygon].points[dragged.point] = mouse;
  }
  draw();
});

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !state.face) return;
  canvas.focus();
  const place = mouse = at(event), { open } = state;
  if (open) {
    if (open.points.length > 2 && away(open.points[0], place) < NEAR / scale()) close();
    else open.points.push(place);
    tell();
    return;
  }
  const before = copyOf(state.face.polygons), edge = pointAt(place) ? null : edgeAt(place);
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
  canvas.setPointerCapture(event.pointerId);
  tell();
});

canvas.addEventListener("pointerup", () => {
  const changed = dragged?.moved;
  dragged = null;
  if (changed) save();
});

// ---- drawing ----

function tell() {
  const { face, names } = state;
  where.textContent = face ? `${face.name} · ${state.at + 1} of ${names.length}`
    : names.length ? "" : `no aligned faces of ${state.side}`;
  slider.value = state.at;
  slider.disabled = names.length < 2;
  document.getElementById("undo").disabled = !state.open && !(face && state.past.get(face.name)?.length);
  document.getElementById("copy").disabled = !state.at || !face;
  list.replaceChildren(...(face?.polygons || []).map(({ include, points }, index) => make("button", {
    class: index === state.chosen ? "primary" : "", onclick: () => { state.chosen = index; tell(); },
  }, `${include ? "face" : "hides it"}, ${points.length} points`)));
  draw();
}

let frame = 0;
function draw() {
  frame ||= requestAnimationFrame(() => { frame = 0; paint(); });
}

function outline(pen, points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
}

// The mask as the commands make it: what is drawn as face, or else the base, less what hides it.
function maskOf(polygons) {
  const { width, height } = image, mask = new OffscreenCanvas(width, height), pen = mask.getContext("2d");
  pen.translate(.5, .5);
  if (polygons.some(({ include }) => include)) {
    for (const { include, points } of polygons) if (include) { outline(pen, points); pen.fill(); }
  } else {
    pen.drawImage(base, -.5, -.5, width, height);
    const gray = pen.getImageData(0, 0, width, height);
    for (let i = 0; i < gray.data.length; i += 4) gray.data[i + 3] = gray.data[i];
    pen.putImageData(gray, 0, 0);
  }
  pen.globalCompositeOperation = "destination-out";
  for (const { include, points } of polygons) if (!include) { outline(pen, points); pen.fill(); }
  pen.globalCompositeOperation = "source-out"; // what is not face, in red
  pen.fillStyle = "#ff2a2a";
  pen.fillRect(-.5, -.5, width, height);
  return mask;
}

function paint() {
  const pen = canvas.getContext("2d");
  canvas.hidden = !state.face;
  if (!state.face || !image) return;
  const { clientWidth, clientHeight } = canvas.parentElement, { width, height } = image;
  const enlarged = Math.min(clientWidth / width, clientHeight / height), ratio = window.devicePixelRatio || 1;
  canvas.style.width = `${width * enlarged}px`;
  canvas.style.height = `${height * enlarged}px`;
  [canvas.width, canvas.height] = [width, height].map((side) => Math.round(side * enlarged * ratio));
  const { polygons } = state.face, { open } = state;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (state.shown) {
    pen.globalAlpha = .45;
    const mask = maskOf(open?.points.length > 2 ? [...polygons, open] : polygons);
    pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = 1;
  }
  const k = canvas.width / width, px = ratio / k; // a screen pixel
  pen.setTransform(k, 0, 0, k, k / 2, k / 2);
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
}

new ResizeObserver(draw).observe(canvas.parentElement);

// ---- keys ----

const KEYS = {
  Enter: close, Escape: () => { state.open = null; tell(); }, x: toggle, c: copy, "ctrl z": takeBack,
  m: () => { state.shown = !state.shown; draw(); }, Delete: remove, Backspace: remove,
  ArrowRight: () => go(state.at + 1), ArrowLeft: () => go(state.at - 1),
};
document.addEventListener("keydown", (event) => {
  if (studio.typing(event) || event.target === slider) return;
  if (event.target.tagName === "BUTTON" && /^(Enter| )$/.test(event.key)) return; // it is pressed
  const action = KEYS[`${event.ctrlKey ? "ctrl " : ""}${event.key}`];
  if (!action) return;
  event.preventDefault();
  attempt(action);
});

kind.addEventListener("change", () => { state.include = kind.value === "1"; });
side.addEventListener("change", () => attempt(async () => {
  await saving;
  Object.assign(state, { side: side.value, names: [], at: 0, face: null, past: new Map() });
  await load(localStorage.getItem(`odfs:masks:${state.side}`));
}));
attempt(() => load(start.face || localStorage.getItem(`odfs:masks:${state.side}`)));
window.masks = { state }; // for the tests
