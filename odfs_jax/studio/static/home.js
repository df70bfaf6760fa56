// Where the work stands, the next step as one button, and the queue of jobs.
const { make, call, say, ask } = studio;
const main = document.getElementById("studio-main");
const { orders } = studio.start();
const LOOK = 2000; // milliseconds between two looks at the workspace

const next = make("section", { class: "panel next", "aria-label": "next step" });
const steps = make("ol", { class: "panel steps" });
const log = make("pre", { class: "log", hidden: "" });
const queue = make("section", { class: "panel queue", "aria-label": "queue" });
main.append(make("div", { class: "inner" }, next, log, steps, queue, make("p", { class: "mute" },
  "Also: ", make("a", { href: "extract" }, "place faces by hand"), " · ",
  make("a", { href: "debug" }, "pictures of commands with debug=true"))));

async function post(path, body = {}) {
  try {
    await call(path, body);
    await look();
  } catch (error) { say(error.message, true); }
}

function button({ label, page }, running) {
  if (running) return [make("button", { onclick: () => post("api/home/stop") }, "Stop")];
  if (!label) return [];
  if (page) return [make("a", { class: "primary", href: page }, label)];
  return [make("button", { class: "primary", onclick: () => post("api/home/extract") }, label)];
}

// ---- the queue ----

// What can be queued here; training has more to choose, on its own page.
const names = (words) => Object.fromEntries(words.map((word) => [word, word.replace("_", " and ")]));
const KINDS = {
  extract: { text: "Extract", fields: { side: () => names(["src", "dst", "src_dst"]) } },
  sort: { text: "Sort", fields: { side: () => names(["src", "dst"]), by: () => orders } },
  convert: { text: "Convert", fields: { model: () => names(models) } },
  evaluate: { text: "Evaluate", fields: {} },
};
let models = [];
const kind = make("select", { "aria-label": "what to queue", onchange: () => offer() },
  ...Object.entries(KINDS).map(([value, { text }]) => make("option", { value }, text)));
const choices = make("span", { class: "choices" });
const jobs = make("ol", { class: "jobs" });
const run = make("button", { hidden: "", onclick: () => post("api/queue/run") }, "Run the queue");
const add = (draft) => post("api/queue/add", { command: kind.value, draft, choices: Object.fromEntries(
  [...choices.children].map((select) => [select.name, select.value])) });
queue.append(make("div", { class: "heading" }, make("span", { class: "title" }, "Queue"),
  make("span", { class: "mute" }, "one job after the other, with the studio open or closed"), run), jobs,
  make("div", { class: "add" }, kind, choices,
    make("button", { title: "at the end; it begins when those before it are done", onclick: () => add(false) }, "Queue"),
    make("button", { title: "noted, and not begun", onclick: () => add(true) }, "Draft"),
    make("a", { href: "train" }, "Train …")));

function offer() {
  choices.replaceChildren(...Object.entries(KINDS[kind.value].fields).map(([name, options]) =>
    make("select", { name, "aria-label": name }, ...Object.entries(options()).map(([value, text]) =>
      make("option", { value }, name === "by" ? `${value}: ${text}` : text)))));
}

async function asked(question, yes, path, body) {
  if (await ask(question, { yes })) await post(path, body);
}

function actions({ name, state, said }, at, count) {
  const change = (body) => () => post("api/queue/change", { name, ...body });
  const remove = make("button", { title: "the job and its log are deleted", onclick: () =>
    asked(`Remove “${said}” from the list?`, "Remove", "api/queue/remove", { name }) }, "Remove");
  if (state === "running") {
    return [make("button", { onclick: () => asked(`Stop “${said}”? It saves what it has; the next job begins.`,
      "Stop", "api/queue/stop", { name }) }, "Stop")];
  }
  const again = make("button", { onclick: change({ state: "queued" }) }, state === "drafted" ? "Queue" : "Again");
  if (state !== "queued") return [again, remove];
  return [make("button", { "aria-label": "earlier", disabled: at === 0, onclick: change({ by: -1 }) }, "↑"),
    make("button", { "aria-label": "later", disabled: at === count - 1, onclick: change({ by: 1 }) }, "↓"),
    make("button", { title: "back among the drafts", onclick: change({ state: "drafted" }) }, "Hold"), remove];
}

let queued = "";
async function lookAtQueue() {
  const found = await call("api/queue"), text = JSON.stringify(found);
  if (text === queued) return;
  queued = text;
  if (found.models.join() !== models.join()) { models = found.models; offer(); }
  const waiting = found.jobs.filter(({ state }) => state === "queued");
  run.hidden = found.running || !found.jobs.some(({ state }) => state === "queued" || state === "interrupted");
  jobs.replaceChildren(...found.jobs.map((job) => {
    const row = make("div", { class: "job" }, make("span", { class: `badge ${job.state}` }, job.state),
      make("span", { class: "said" }, job.said), ...actions(job, waiting.indexOf(job), waiting.length));
    const open = ["running", "interrupted", "failed"].includes(job.state) && job.log.length;
    return make("li", { "data-name": job.name, "data-state": job.state }, row,
      ...(open ? [make("pre", { class: "log" }, job.log.join("\n"))] : []));
  }));
  if (!found.jobs.length) jobs.replaceChildren(make("li", { class: "mute" }, "nothing is queued"));
}

// ---- the state of the work ----

let shown = "";
async function look() {
  await lookAtQueue();
  const found = await call("api/home"), text = JSON.stringify(found);
  if (text === shown) return;
  shown = text;
  next.replaceChildren(make("div", { class: "title" }, found.next.text),
    ...button(found.next, found.job.running));
  steps.replaceChildren(...found.steps.map(({ name, page, state, done }) =>
    make("li", { class: done ? "done" : "" }, page ? make("a", { href: page }, name) : make("span", {}, name),
      make("span", { class: "mute" }, state))));
  const lines = found.job.log.trim().split(/[\n\r]/);
  log.hidden = !found.job.log;
  log.textContent = lines.slice(-6).join("\n");
  main.dataset.ready = "1";
}

async function watch() {
  if (!document.hidden) await look().catch((error) => say(error.message, true));
  setTimeout(watch, LOOK);
}
offer();
watch();
