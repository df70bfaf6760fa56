// The workspaces of a studio: where the work in each of them stands, and a new one.
const { make, call, say } = studio;
const main = document.getElementById("studio-main");
const { folder } = studio.start();
const LOOK = 4000; // milliseconds between two looks at the workspaces

const list = make("ul", { class: "panel rooms" });
const name = make("input", { type: "text", "aria-label": "name of a new workspace", maxlength: 200,
  placeholder: "name of a new workspace" });
main.append(make("div", { class: "inner" },
  make("div", { class: "title" }, `Workspaces in ${folder}`), list,
  make("form", { class: "add", onsubmit: create }, name, make("button", {}, "New workspace"))));

async function create(event) {
  event.preventDefault();
  try {
    await call("api/workspaces", { name: name.value });
    studio.enter(name.value);
  } catch (error) { say(error.message, true); }
}

let shown = "";
async function look() {
  const { workspaces } = await call("api/workspaces"), text = JSON.stringify(workspaces);
  if (text === shown) return;
  shown = text;
  list.replaceChildren(...workspaces.map((one) => make("li", {},
    make("div", { class: "heading" }, make("a", { href: `/w/${encodeURIComponent(one.name)}/` }, one.name),
      ...(one.at_work ? [make("span", { class: "badge running" }, "at work")] : [])),
    make("div", {}, one.next), make("div", { class: "mute" }, one.steps.join(" · ")))));
  if (!workspaces.length) list.replaceChildren(make("li", { class: "mute" }, "no folder here yet"));
  main.dataset.ready = "1";
}

async function watch() {
  if (!document.hidden) await look().catch((error) => say(error.message, true));
  setTimeout(watch, LOOK);
}
watch();
