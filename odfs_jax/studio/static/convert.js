// Conversion: settings are tried on one frame and written down as shots; the server merges.
import { Form } from "./form.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

const { make, call, say, ask } = studio;
const start = studio.start();
const main = document.getElementById("studio-main");
const LOOK = 1000; // milliseconds between two looks at the conversion
const IDLE = 6000; // milliseconds without a question, after which a mode is compiled
const LONG = 1500; // milliseconds of merging, after which it says what takes so long
const RANGE = 25; // frames that are played, if nothing else is asked for
const SIZE = "No clip tells how large src's face is in dst's head: it is a matter of taste. Move this until the head " +
  "looks right; for a woman's face on a man's head −10 to 0 does. With anchor eyes it is about dst's eyes.";
const MOST_RANGE = 250; // frames that are played at most: all of them wait in the browser

const state = {
  count: 0, rate: 25, noted: {}, frame: 0, version: "0", file: "",
  shots: [], // [{from, ...what differs from the command's settings}], the first from 0
  view: "merged", compare: "one", tinted: false, playing: false,
  written: true, result: null, is_clip: false, job: null, trips: [], rest: 0,
};

const button = (id, text, action, title) => make("button", { id, title, onclick: (event) => {
  event.currentTarget.blur();
  attempt(action);
} }, text);
const model = make("select", { "aria-label": "model" });
const number = make("input", { type: "number", min: 0, "aria-label": "frame" });
const of = make("span", { class: "mute" });
const views = Object.fromEntries([["merged", "merged"], ["original", "dst [o]"], ["result", "result"]]
  .map(([view, text]) => [view, button(`view-${view}`, text, () => look(view))]));
const compare = make("select", { "aria-label": "compare with dst", title: "dst beside the frame [v]" },
  ...[["one", "alone"], ["wipe", "dst wiped over"], ["side", "dst beside"]].map(([value, text]) =>
    make("option", { value }, text)));
const tint = button("tint", "mask [m]", toggleTint, "what is new is red");
const play = button("play", "▶ play [space]", togglePlay,
  "the frames from here on, from the last one on from the first, again and again; of a result: the clip, with sound");
const range = make("input", { type: "number", min: 2, max: MOST_RANGE, value: RANGE, "aria-label": "frames to play",
  title: "so many frames are played" });
const write = button("write", "Write shots [w]", writeShots, "into the file that convert.py reads");
const discard = button("discard", "Discard", discardDraft, "back to the shots in the file");
const stage = new Stage();
const video = make("video", { controls: "", loop: "", hidden: "" });
const busy = make("div", { class: "busy", hidden: "" });
const list = make("div", { class: "shots" });
const log = make("pre", { class: "log" });
const jobText = make("span", { class: "job mute", role: "status" });
const bar = make("progress", { max: 1, hidden: "", "aria-label": "how far the conversion is" });
const begin = button("begin", "Start conversion", beginJob);
const queue = button("queue", "Queue", enqueue,
  "when the jobs before it in the queue are done (see Home); an earlier result is kept then");
const stop = button("stop", "Stop", () => call("api/convert/stop", {}));
const strip = make("canvas", { class: "timeline", height: 36 });
const form = new Form(start.fields, start.base, () => { changed(); merge(); });
form.edit({}); // the command's own settings, until the shots are read

stage.element.append(video, busy);
begin.classList.add("primary");
main.append(
  make("div", { class: "bar" },
    make("label", {}, "model", model), make("label", {}, "frame", number), of,
    button("earlier", "←", () => go(state.frame - 1), "the frame before [← or ,]"),
    button("later", "→", () => go(state.frame + 1), "the next frame [→ or .]"),
    make("span", { class: "space" }), bar, jobText, begin, queue, stop),
  make("div", { class: "body" },
    make("div", { class: "column" },
      make("div", { class: "bar tools" }, ...Object.values(views), compare, tint, play,
        range, make("span", { class: "space" }),
        button("smaller", "−", () => stage.enlarge(1 / 1.25), "smaller [-], or the wheel"),
        button("fit", "fit", () => stage.fit(), "the whole frame [0], or a double click"),
        button("actual", "1:1", () => stage.actual(), "a pixel is a pixel"),
        button("larger", "+", () => stage.enlarge(1.25), "larger [+], or the wheel; drag to move")),
      stage.element),
    make("aside", { inert: "" },
      make("div", { class: "row" }, make("b", {}, "Shots"), make("span", { class: "space" }),
        button("split", "New from here [n]", split), write),
      list,
      make("div", { class: "row" }, make("b", {}, "Settings of this shot"), make("span", { class: "space" }),
        discard),
      make("section", { class: "size", "aria-label": "the size of src's face" },
        make("b", {}, "Size of src's face"), form.rowOf("scale"), make("div", { class: "mute" }, SIZE)),
      form.element,
      make("details", { class: "keys" }, make("summary", {}, "Keys"), make("div", { id: "keys" })),
      make("details", { open: "" }, make("summary", {}, "What the conversion printed"), log))),
  strip);
const timeline = new Timeline(strip, state, (at) => go(at));

async function attempt(action) {
  try { return await action(); } catch (error) { say(error.message, true); }
}

// ---- frames ----

function go(at) {
  if (Number.isNaN(at)) return;
  pause();
  state.frame = Math.max(0, Math.min(state.count - 1, at));
  refresh();
}

function look(view) {
  pause();
  state.view = view;
  refresh();
}

function refresh() {
  tell();
  if (state.view === "merged") merge(); else attempt(show);
  showOther();
}

// dst's own frame, or that of the result.
async function show() {
  const { view, frame } = state;
  const where = view === "result" ? `api/convert/result/${frame}?v=${state.result}` : dstFrame(frame);
  await put(where, () => state.view === view && state.frame === frame);
}

const dstFrame = (frame) => `api/frames/dst/${frame}`;

async function showOther() {
  if (state.compare === "one") return;
  const { frame } = state, image = new Image();
  image.src = dstFrame(frame);
  try { await image.decode(); } catch { return; } // the frame itself says so
  if (state.frame === frame) stage.other.src = image.src;
}

async function put(source, wanted) {
  const image = new Image();
  image.src = source;
  try { await image.decode(); } catch { say("this frame cannot be shown", true); return; }
  if (!wanted()) return;
  stage.picture.src = source;
  main.dataset.shown = `${state.view} ${state.frame}`;
}

const warm = new Set(); // the model and settings that were compiled while nothing else was asked for
let asking = false, again = false, drawn = "";

function merge() {
  if (state.view !== "merged" || !model.value || state.playing) return;
  state.rest = performance.now();
  attempt(askForFrame);
}

// A merged frame as the server makes it with its shot's settings.
async function fetchMerged(frame) {
  const settings = settingsOf(shotOf(frame)), ramp = rampOf(frame);
  const request = { model: model.value, frame, merge: settings, ...ramp, tinted: state.tinted };
  const slow = setTimeout(() => { busy.textContent = "merging: compiling for these settings, once …"; }, LONG);
  busy.textContent = "merging …";
  busy.hidden = false;
  try {
    const answer = await fetch("api/convert/still", { method: "POST", body: JSON.stringify(request),
      headers: { "Content-Type": "application/json" } });
    if (!answer.ok) throw new Error((await answer.json()).error || answer.statusText);
    return { source: URL.createObjectURL(await answer.blob()), settings: { ...settings, ...ramp } };
  } finally {
    clearTimeout(slow);
    busy.hidden = true;
  }
}

// One question at a time; while it is answered, the settings may have changed.
async function askForFrame() {
  if (asking) { again = true; return; }
  const { frame, rest, tinted } = state;
  asking = true;
  try {
    const { source, settings } = await fetchMerged(frame);
    await put(source, () => state.view === "merged" && state.frame === frame && !state.playing);
    URL.revokeObjectURL(drawn);
    drawn = source;
    main.dataset.merged = JSON.stringify(settings);
    main.dataset.tinted = tinted;
    state.trips.push(performance.now() - rest);
  } finally {
    asking = false;
    if (again) { again = false; attempt(askForFrame); }
  }
}

// While nothing is asked for, the modes are compiled for the present settings, one after the other.
async function warmUp() {
  const shot = state.view === "merged" && model.value && state.shots.length && shotOf(state.frame);
  if (!shot || asking || state.playing || state.job === "running" || document.hidden ||
    performance.now() - state.rest < IDLE) return;
  const { args, ...settings } = settingsOf(shot), modes = start.fields.find((field) => field.name === "mode").options;
  const named = (mode) => JSON.stringify([model.value, { ...settings, mode }]);
  const mode = modes.find((one) => one !== (shot.mode ?? start.base.mode) && !warm.has(named(one)));
  if (!mode) return;
  warm.add(named(mode));
  state.rest = performance.now();
  const request = { model: model.value, frame: state.frame, merge: { ...settings, mode } };
  await fetch("api/convert/still", { method: "POST", body: JSON.stringify(request),
    headers: { "Content-Type": "application/json" } });
}

function toggleTint() {
  state.tinted = !state.tinted;
  look("merged");
}

function compareAs(how) {
  compare.value = state.compare = how;
  stage.compare(how);
  showOther();
}

// ---- playing ----

function togglePlay() {
  if (state.playing) { pause(); refresh(); return; }
  if (state.frame === state.count - 1) state.frame = 0;
  if (state.view === "result" && state.is_clip) { playClip(); return; }
  attempt(playFrames);
}

// The result as the browser plays it, with its sound, from the present frame on.
async function playClip() {
  state.playing = true;
  video.src = `api/convert/clip?v=${state.result}`;
  video.hidden = false;
  tell();
  video.onloadedmetadata = () => { video.currentTime = state.frame / state.count * video.duration; };
  video.onerror = () => {
    if (!state.playing) return;
    pause();
    say("this browser cannot play the result's codec; its frames are shown one by one", true);
  };
  try { await video.play(); } catch { /* onerror says why, or it was paused meanwhile */ }
}

// The frames of the range, each as soon as it is there: at the clip's rate once all of them were.
async function playFrames() {
  const first = state.frame;
  const last = Math.min(state.count, first + Math.min(MOST_RANGE, range.valueAsNumber || RANGE)) - 1;
  const known = new Map(); // {view, settings and number of a frame: its address}
  state.playing = true;
  tell();
  try {
    for (let at = first; state.playing; at = at < last ? at + 1 : first) {
      const since = performance.now();
      state.frame = at;
      const key = JSON.stringify([state.view, at, state.tinted, shotOf(at), rampOf(at)]);
      if (!known.has(key)) known.set(key, await addressOf(at));
      if (!state.playing) break;
      tell();
      showOther();
      await put(known.get(key), () => state.playing);
      await new Promise((done) => setTimeout(done, since + 1000 / state.rate - performance.now()));
    }
  } finally {
    for (const source of known.values()) if (source.startsWith("blob:")) URL.revokeObjectURL(source);
    if (state.playing) { pause(); tell(); } // it failed
  }
}

async function addressOf(frame) {
  if (state.view === "merged") return (await fetchMerged(frame)).source;
  return state.view === "result" ? `api/convert/result/${frame}?v=${state.result}` : dstFrame(frame);
}

function pause() {
  if (!state.playing) return;
  state.playing = false;
  if (video.hidden) return;
  if (video.duration) state.frame = Math.min(state.count - 1, Math.floor(video.currentTime / video.duration * state.count));
  video.removeAttribute("src");
  video.load();
  video.hidden = true;
}

// ---- shots ----

const shotOf = (frame) => state.shots.findLast((shot) => shot.from <= frame);
const settingsOf = ({ from, ramp, ...settings }) => settings;

// What a frame in the ramp at the beginning of its shot depends on besides the shot.
function rampOf(frame) {
  const shot = shotOf(frame), step = frame - shot.from;
  if (step >= (shot.ramp || 0)) return {};
  return { before: settingsOf(shotOf(shot.from - 1)), ramp: shot.ramp, step };
}

// The browser keeps what is not written yet, even when the page or the studio is closed.
const draftKey = () => ["odfs", start.workspace, "shots", state.file].join(":");

function changed() {
  state.written = false;
  localStorage.setItem(draftKey(), JSON.stringify({ version: state.version, shots: state.shots }));
  tell();
}

function split() {
  const { frame, shots } = state, before = shotOf(frame);
  if (before.from === frame) { say("a shot begins at this frame already"); return; }
  shots.splice(shots.indexOf(before) + 1, 0, { ...structuredClone(settingsOf(before)), from: frame });
  changed();
}

function remove(shot) {
  state.shots.splice(state.shots.indexOf(shot), 1);
  changed();
  merge();
}

async function writeShots() {
  const shots = state.shots.filter((shot, at) => at || Object.keys(shot).length > 1);
  const plan = { model: model.value, version: state.version, shots };
  state.version = (await call("api/convert/shots", plan)).version;
  state.written = true;
  localStorage.removeItem(draftKey());
  tell();
  say(`written: ${state.file}`);
}

async function discardDraft() {
  if (!await ask(`Go back to the shots in ${state.file}?`, { yes: "Discard what is not written" })) return;
  localStorage.removeItem(draftKey());
  await readShots();
  refresh();
}

// The shots of the file, or what was made of them and not written yet.
async function readShots() {
  const { models, shots, ...known } = await call("api/convert/shots");
  Object.assign(state, known, { shots: fromStart(shots), written: true });
  const draft = readDraft();
  if (!draft) return models;
  Object.assign(state, { shots: draft.shots, written: false });
  say(draft.version === state.version ? "these settings are not written yet"
    : `${state.file} was changed since these settings were made; writing them replaces it`, false, 8);
  return models;
}

const fromStart = (shots) => shots.length && shots[0].from === 0 ? shots : [{ from: 0 }, ...shots];

function readDraft() {
  try {
    const draft = JSON.parse(localStorage.getItem(draftKey()));
    return draft.shots[0].from === 0 ? draft : null;
  } catch {
    return null;
  }
}

// How many frames the numbers take to become those of the shot.
function ramp(shot) {
  const title = "frames in which scale, erosion, blur, opacity, sharpening and motion blur go evenly from the shot before";
  const input = make("input", { type: "number", min: 0, max: 1000, value: shot.ramp || 0, "aria-label":
    `frames of the ramp to the shot from ${shot.from}`, onclick: (event) => event.stopPropagation(), onchange: () => {
    const frames = Math.round(input.valueAsNumber) || 0;
    if (frames) shot.ramp = frames; else delete shot.ramp;
    changed();
    merge();
  } });
  return make("label", { class: "ramp", title }, "ramp", input);
}

function words(shot) {
  const settings = settingsOf(shot);
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
  tint.classList.toggle("primary", state.tinted);
  play.textContent = state.playing ? "❚❚ pause" : "▶ play [space]";
  main.dataset.playing = state.playing;
  if (state.view !== "merged") busy.hidden = true; // of a frame that is no longer asked for
  list.replaceChildren(...state.shots.map((shot, at) => make("div", {
    class: shot === now ? "shot current" : "shot", onclick: () => go(shot.from) },
    make("b", {}, `from ${shot.from}`), " ", make("span", { class: "mute" }, words(shot)),
    ...(at ? [ramp(shot), make("button", { title: "remove", onclick: (event) => { event.stopPropagation(); remove(shot); } },
      "×")] : []))));
  write.disabled = state.written;
  discard.hidden = state.written;
  write.classList.toggle("primary", !state.written);
  if (now) form.edit(now);
  timeline.draw();
}

// ---- the conversion ----

async function beginJob() {
  if (!state.written) await writeShots();
  await watch();
  let earlier = "refuse";
  if (state.result !== null) {
    const name = state.path.split("/").at(-1), kept = name.replace(/(\.\w+)?$/, ".1$1");
    const replace = state.is_clip ? "Replace it" : "Write into it, go on where it ended";
    earlier = await ask(`${name} is there already${state.size ? `, ${megabytes(state.size)}` : ""}. Keep it?`,
      { keep: `Keep it, as ${kept} or the next free number`, replace });
    if (!earlier) return;
  }
  await call("api/convert/start", { model: model.value, earlier });
  await watch();
}

async function enqueue() {
  if (!state.written) await writeShots();
  await call("api/queue/add", { command: "convert", choices: { model: model.value } });
  say("the conversion is in the queue, on the page Home");
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

async function watch() {
  const { log: printed, ...now } = await call("api/convert/job"), before = state.job;
  const end = now.code === null ? (printed ? "ended" : "not started") : now.code ? `failed (${now.code})` : "done";
  const job = now.running ? "running" : end;
  log.textContent = printed.trim().split("\n").slice(-12).join("\n");
  const [done, total, left] = now.progress || [];
  bar.hidden = !now.running;
  if (done === undefined) bar.removeAttribute("value"); else bar.value = done / total;
  jobText.textContent = now.running
    ? done === undefined ? `starting, ${clock(now.seconds)}` : `${done} of ${total} frames, ${clock(left)} left`
    : job === "done" ? `done: ${now.path}${now.size ? `, ${megabytes(now.size)}` : ""}` : job === "not started" ? "" : job;
  jobText.title = jobText.textContent;
  begin.disabled = now.running || !model.value;
  queue.disabled = !model.value;
  stop.disabled = !now.running;
  const isNew = now.result !== state.result;
  Object.assign(state, { job, result: now.result, path: now.path, is_clip: now.is_clip, size: now.size });
  main.dataset.job = job;
  if (before === "running" && job !== "running") {
    if (job === "done") say(jobText.textContent, false, 10);
    else say(`the conversion ${job}: ${printed.trim().split("\n").at(-1)}`, true);
  }
  if (isNew) {
    if (now.result === null && state.view === "result") look("merged"); else tell();
  }
}

setInterval(() => warmUp().catch(() => {}), LOOK); // what cannot be merged is said when it is asked for
setInterval(() => watch().catch(() => { jobText.textContent = "the studio does not answer"; }), LOOK);

// ---- keys and the beginning ----

// DeepFaceLab's own where they are free: [keys, what they do, [key: action]].
const step = (key, name, steps) => ({ [key]: () => form.nudge(name, steps), [key.toUpperCase()]: () => form.nudge(name, steps * 5) });
const pair = (up, down, name) => [`${up} ${down}`, `${name} up and down; with Shift by five steps`,
  { ...step(up, name, 1), ...step(down, name, -1) }];
const KEYS = [
  ["← → , .", "the frame before, the next", { ArrowLeft: () => go(state.frame - 1), ArrowRight: () => go(state.frame + 1),
    ",": () => go(state.frame - 1), ".": () => go(state.frame + 1) }],
  ["o `", "dst", { o: () => look(state.view === "original" ? "merged" : "original"),
    "`": () => look(state.view === "original" ? "merged" : "original") }],
  ["v", "dst wiped over, beside, not", { v: () => compareAs({ one: "wipe", wipe: "side", side: "one" }[state.compare]) }],
  ["m", "what is new in red", { m: toggleTint }],
  ["space", "play, pause", { " ": togglePlay }],
  ["+ − 0", "larger, smaller, the whole frame", { "+": () => stage.enlarge(1.25), "-": () => stage.enlarge(1 / 1.25),
    0: () => stage.fit() }],
  ["n", "a shot begins here", { n: split }],
  ["w", "write the shots", { w: () => state.written || writeShots() }],
  ["1 … 9", "a mode", Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((at) => [at, () => form.next("mode", at - 1)]))],
  ["x", "the next mask", { x: () => form.next("mask") }],
  ["c", "the next color transfer", { c: () => form.next("color") }],
  ["Shift W S", "erode up and down by five", { W: () => form.nudge("erode", 5), S: () => form.nudge("erode", -5) }],
  pair("e", "d", "blur"), pair("r", "f", "motion_blur"), pair("u", "j", "scale"), pair("y", "h", "sharpen"),
  pair("i", "k", "degrade.denoise"),
];
const ACTIONS = Object.assign({}, ...KEYS.map(([, , actions]) => actions));
document.getElementById("keys").append(...KEYS.map(([keys, what]) =>
  make("div", {}, make("kbd", {}, keys), " ", make("span", { class: "mute" }, what.replace("_", " ").replace(".", " ")))));

number.addEventListener("change", () => go(number.valueAsNumber));
model.addEventListener("change", merge);
compare.addEventListener("change", () => { compareAs(compare.value); compare.blur(); });
document.addEventListener("keydown", (event) => {
  const action = ACTIONS[event.key], onRange = event.target.type === "range" && event.key.startsWith("Arrow");
  const onButton = event.key === " " && /^(BUTTON|SUMMARY|VIDEO)$/.test(event.target.tagName);
  if (!action || studio.typing(event) || onRange || onButton || event.target.type === "checkbox" ||
    event.repeat && "o`vm ".includes(event.key)) return;
  event.preventDefault();
  attempt(action);
});

async function load() {
  const models = await readShots();
  main.querySelector("aside").inert = false;
  model.replaceChildren(...models.map((name) => make("option", { value: name }, name)));
  if (models.includes(start.model)) model.value = start.model;
  if (!models.length) say("no trained model here; train one first", true);
  for (;;) {
    const { noted, missing } = await call("api/frames/dst");
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
window.converting = { state, form, stage }; // for the tests
