// Where the work stands, and the next step as one button.
const { make, call, say } = studio;
const main = document.getElementById("studio-main");
const LOOK = 2000; // milliseconds between two looks at the workspace

const next = make("section", { class: "panel next", "aria-label": "next step" });
const steps = make("ol", { class: "panel steps" });
const log = make("pre", { class: "log", hidden: "" });
main.append(make("div", { class: "inner" }, next, log, steps, make("p", { class: "mute" },
  "Also: ", make("a", { href: "/extract" }, "place faces by hand"), " · ",
  make("a", { href: "/debug" }, "pictures of commands with debug=true"))));

async function post(path) {
  try {
    await call(path, {});
    await look();
  } catch (error) { say(error.message, true); }
}

function button({ label, page }, running) {
  if (running) return [make("button", { onclick: () => post("/api/home/stop") }, "Stop")];
  if (!label) return [];
  if (page) return [make("a", { class: "primary", href: page }, label)];
  return [make("button", { class: "primary", onclick: () => post("/api/home/extract") }, label)];
}

let shown = "";
async function look() {
  const found = await call("/api/home"), text = JSON.stringify(found);
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
watch();
