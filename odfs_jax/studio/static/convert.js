// Conversion: settings are tried on one frame and written down as shots; the server merges.
import { Form } from "./form.js";
import { Timeline } from "./timeline.js";

const { make, call, say } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const REST = 120; // milliseconds without a change before a frame is merged
const LOOK = 1000; // milliseconds between two looks at the conversion

const state = {
  count: 0, noted: {}, frame: 0, version: "0", file: "",
  shots: [], // [{from, ...what differs from the command's settings}], the first from 0
  view: "merged", written: true, result: null, trips: [],
};

const model = make("select", { "aria-label": "model" });
const number = make("input", { type: "number", min: 0, "aria-label": "frame" });
const of = make("span", { class: "mute" });
const views = Object.fromEntries([["merged", "merged"], ["original", "dst [o]"], ["result", "result"]]
  .map(([view, text]) => [view, make("button", { "data-view": view, onclick: () => look(view) }, text)]));
const button = (id, text, action, title) => make("button", { id, title, onclick: (event) => {
  event.currentTarget.blur();
  attempt(action);
} }, text);
const write = button("write", "Write shots [w]", writeShots, "into the file that convert.py reads");
const picture = make("img", { class: "frame", alt: "the frame" });
const busy = make("div", { class: "busy", hidden: "" }, "merging …");
const list = make("div", { class: "shots" });
const job = make("pre", { class: "log" });
const jobState = make("b", { class: "state" }, "not started");
const strip = make("canvas", { class: "timeline", height: 36 });
const form = new Form(start.fields, start.base, () => { state.written = false; tell(); merge(); });

main.append(
  make("div", { class: "bar" },
    make("label", {}, "model", model), make("label", {}, "frame", number), of,
    button("earlier", "←", () => go(state.frame - 1)), button("later", "→", () => go(state.frame + 1)),
    ...Object.values(views), make("span", { class: "space" }),
    button("begin", "Start conversion", begin), button("stop", "Stop", () => call("/api/convert/stop", {}))),
  make("div", { class: "body" },
    make("div", { class: "stage" }, picture, busy),
    make("aside", {},
      make("div", { class: "row" }, make("b", {}, "Shots"), make("span", { class: "space" }),
        button("split", "New from here [n]", split), write),
      list, make("b", {}, "Settings of this shot"), form.element,
      make("div", { class: "row" }, make("b", {}, "Conversion"), jobState), job)),
  strip);
document.querySelector("#begin").classList.add("primary");
const timeline = new Timeline(strip, state, (at) => go(at));

async function attempt(action) {
  try { return await action(); } catch (error) { say(error.message, true); }
}

// ---- frames ----

function go(at) {
  if (Number.isNaN(at)) return;
  state.frame = Math.max(0, Math.min(state.count - 1, at));
  tell();
  if (state.view === "merged") merge(); else show();
}

function look(view) {
  state.view = view;
  tell();
  if (view === "merged") merge(); else show();
}

// dst's own frame, or that of the result.
async function show() {
  const { view, frame } = state;
  const where = view === "result" ? `/api/convert/result/${frame}?v=${state.result}` : `/api/frames/dst/${frame}`;
  await put(where, () => state.view === view && state.frame === frame);
}

async function put(source, wanted) {
  const image = new Image();
  image.src = source;
  try { await image.decode(); } catch { say("this frame cannot be shown", true); return; }
  if (!wanted()) return;
  picture.src = source;
  main.dataset.shown = `${state.view} ${state.frame}`;
}

let timer = 0, asking = false, again = false, drawn = "";

function merge() {
  if (state.view !== "merged" || !model.value) return;
  clearTimeout(timer);
  state.rest = performance.now();
  timer = setTimeout(() => attempt(ask), REST);
}

// One question at a time; while it is answered, the settings may have changed.
async function ask() {
  if (asking) { again = true; return; }
  const { from, ...settings } = shotOf(state.frame);
  const request = { model: model.value, frame: state.frame, merge: settings };
  const { frame, rest } = state;
  asking = true;
  busy.hidden = false;
  try {
    const answer = await fetch("/api/convert/still", { method: "POST", body: JSON.stringify(request),
      headers: { "Content-Type": "application/json" } });
    if (!answer.ok) throw new Error((await answer.json()).error || answer.statusText);
    const source = URL.createObjectURL(await answer.blob());
    await put(source, () => state.view === "merged" && state.frame === frame);
    URL.revokeObjectURL(drawn);
    drawn = source;
    main.dataset.merged = JSON.stringify(settings);
    state.trips.push(performance.now() - rest);
  } finally {
    asking = false;
    busy.hidden = !again;
    if (again) { again = false; attempt(ask); }
  }
}

// ---- shots ----

const shotOf = (frame) => state.shots.findLast((shot) => shot.from <= frame);

function split() {
  const { frame, shots } = state, before = shotOf(frame);
  if (before.from === frame) { say("a shot begins at this frame already"); return; }
  shots.splice(shots.indexOf(before) + 1, 0, { ...structuredClone(before), from: frame });
  state.written = false;
  tell();
}

function remove(shot) {
  state.shots.splice(state.shots.indexOf(shot), 1);
  state.written = false;
  tell();
  merge();
}

async function writeShots() {
  const shots = state.shots.filter((shot, at) => at || Object.keys(shot).length > 1);
  const plan = { model: model.value, version: state.version, shots };
  state.version = (await call("/api/convert/shots", plan)).version;
  state.written = true;
  tell();
  say(`written: ${state.file}`);
}

function words(shot) {
  const { from, ...settings } = shot;
  const flat = (part, above = "") => Object.entries(part).flatMap(([key, value]) =>
    value && typeof value === "object" && !Array.isArray(value) ? flat(value, `${above}${key}.`)
      : [`${above}${key} ${value}`]);
  return flat(settings).join(", ") || "as the command";
}

function tell() {
  const now = shotOf(state.frame);
  number.value = state.frame;
  number.max = state.count - 1;
  of.textContent = `of 0 … ${state.count - 1}`;
  for (const [view, element] of Object.entries(views)) element.classList.toggle("primary", view === state.view);
  views.result.disabled = state.result === null;
  list.replaceChildren(...state.shots.map((shot, at) => make("div", {
    class: shot === now ? "shot current" : "shot", onclick: () => go(shot.from) },
    make("b", {}, `from ${shot.from}`), " ", make("span", { class: "mute" }, words(shot)),
    ...(at ? [make("button", { title: "remove", onclick: (event) => { event.stopPropagation(); remove(shot); } },
      "×")] : []))));
  write.disabled = state.written;
  write.classList.toggle("primary", !state.written);
  if (now) form.edit(now);
  timeline.draw();
}

// ---- the conversion ----

async function begin() {
  if (!state.written) await writeShots();
  await call("/api/convert/start", { model: model.value });
  await watch();
}

async function watch() {
  const now = await call("/api/convert/job");
  const end = now.code === null ? (now.log ? "ended" : "not started") : now.code ? `failed (${now.code})` : "done";
  jobState.textContent = now.running ? `running, ${Math.round(now.seconds)} s` : end;
  jobState.className = now.running ? "state training" : "state";
  job.textContent = now.log.trim().split("\n").slice(-12).join("\n");
  document.querySelector("#begin").disabled = now.running || !model.value;
  document.querySelector("#stop").disabled = !now.running;
  main.dataset.job = now.running ? "running" : end;
  if (now.result !== state.result) { state.result = now.result; tell(); }
}

setInterval(() => watch().catch(() => { jobState.textContent = "the studio does not answer"; }), LOOK);

// ---- keys and the beginning ----

number.addEventListener("change", () => go(number.valueAsNumber));
model.addEventListener("change", merge);
document.addEventListener("keydown", (event) => {
  if (studio.typing(event) || event.target.type === "range" || event.repeat && event.key === "o") return;
  const keys = {
    ArrowLeft: () => go(state.frame - 1), ArrowRight: () => go(state.frame + 1), n: split,
    w: () => state.written || writeShots(),
    o: () => look(state.view === "original" ? "merged" : "original"),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  attempt(keys[event.key]);
});

async function load() {
  const { models, shots, ...known } = await call("/api/convert/shots");
  Object.assign(state, known);
  state.shots = shots.length && shots[0].from === 0 ? shots : [{ from: 0 }, ...shots];
  model.replaceChildren(...models.map((name) => make("option", { value: name }, name)));
  if (models.includes(start.model)) model.value = start.model;
  if (!models.length) say("no trained model here; train one first", true);
  for (;;) {
    const { noted, missing } = await call("/api/frames/dst");
    state.noted = noted;
    if (!missing) break;
    await new Promise((done) => setTimeout(done, 500));
  }
  const faces = Object.keys(state.noted).filter((at) => state.noted[at][0]).map(Number);
  await watch();
  go(Math.min(...faces, state.count - 1));
  main.dataset.ready = "1";
}

attempt(load);
window.converting = { state, form }; // for the tests
