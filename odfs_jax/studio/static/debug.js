// The pictures that commands with debug=true left, one at a time.
const { make, call, say } = studio;
const main = document.getElementById("studio-main");
const LOOK = 3000; // milliseconds between two looks at the folders

const state = { folders: {}, folder: "", at: 0 };
const list = make("div", { class: "list" });
const where = make("b", { class: "where", role: "status" });
const file = make("span", { class: "mute file" });
const picture = make("img", { class: "frame", alt: "" });
const slider = make("input", { type: "range", min: 0, "aria-label": "picture", oninput: () => go(slider.valueAsNumber) });
const none = make("div", { class: "none mute", hidden: "" }, "No pictures yet. A command with debug=true leaves them: ",
  make("code", {}, "python extract.py data=dst debug=true"), ", the same for train.py and convert.py.");

main.append(make("div", { class: "body" },
  make("aside", {}, make("b", {}, "Folders"), list),
  make("div", { class: "stage" }, none, picture)),
  make("div", { class: "bar" }, where, file, slider, make("kbd", {}, "←"), make("kbd", {}, "→")));

const names = () => state.folders[state.folder] || [];

// A name in words. FRAME_LEFT_TOP.png is the sheet of a merged face, whose region begins there.
function title(name) {
  const [number, left, top] = name.replace(/\.[a-z]+$/, "").split("_").map(Number);
  if (!Number.isInteger(number)) return name;
  if (/^models\//.test(state.folder)) return `iteration ${number}`;
  if (!Number.isInteger(left) || !Number.isInteger(top)) return `frame ${number}`;
  const faces = names().filter((other) => Number(other.split("_")[0]) === number);
  return `frame ${number}, face ${faces.indexOf(name) + 1} of ${faces.length}`;
}

function go(at) {
  state.at = Math.max(0, Math.min(names().length - 1, at));
  tell();
}

function choose(folder) {
  Object.assign(state, { folder, at: 0 });
  tell();
}

function tell() {
  const found = names(), name = found[state.at];
  none.hidden = Object.keys(state.folders).length > 0;
  list.replaceChildren(...Object.entries(state.folders).map(([folder, files]) => make("button", {
    class: folder === state.folder ? "primary" : "", onclick: () => choose(folder) }, `${folder} (${files.length})`)));
  slider.max = Math.max(0, found.length - 1);
  slider.value = state.at;
  slider.disabled = found.length < 2;
  where.textContent = name ? title(name) : "";
  file.textContent = name ? `${name} · ${state.at + 1} of ${found.length}` : "";
  file.title = "a picture is named for its frame, a sheet also for where its region begins (left, top)";
  picture.alt = where.textContent;
  slider.setAttribute("aria-valuetext", where.textContent);
  picture.hidden = !name;
  if (!name) return;
  const source = `api/debug/picture?${new URLSearchParams({ folder: state.folder, name })}`;
  if (picture.getAttribute("src") !== source) picture.src = source;
}

async function look() {
  try {
    const { folders } = await call("api/debug");
    if (JSON.stringify(folders) === JSON.stringify(state.folders) && main.dataset.ready) return;
    state.folders = folders;
    if (!(state.folder in folders)) Object.assign(state, { folder: Object.keys(folders)[0] || "", at: 0 });
    tell();
    main.dataset.ready = "1";
  } catch (error) { say(error.message, true); }
}

picture.addEventListener("load", () => { main.dataset.shown = `${state.folder}/${names()[state.at]}`; });
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || studio.typing(event) || event.target === slider) return;
  event.preventDefault();
  go(state.at + step);
});
setInterval(look, LOOK);
look();
