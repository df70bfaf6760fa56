// One face enlarged, with its points and what is known of it; contact sheets of an order.

const { make } = studio;

function overlay(...children) {
  const element = make("div", { class: "look", tabindex: "-1" }, ...children);
  element.addEventListener("pointerdown", (event) => {
    if (event.target === element) element.close();
  });
  element.close = () => { document.removeEventListener("keydown", element.keys, true); element.remove(); };
  document.getElementById("studio-main").append(element);
  element.focus();
  return element;
}

function listen(element, keys) {
  element.keys = (event) => {
    event.stopPropagation();
    if (event.key === "Escape" || event.key === "Enter") element.close();
    else if (!keys[event.key]) return;
    else keys[event.key]();
    event.preventDefault();
  };
  document.addEventListener("keydown", element.keys, true);
}

export function look(name, { picture, data, step, remove }) {
  const canvas = make("canvas", { width: 16, height: 16 });
  const table = make("table");
  const title = make("div", { class: "title" });
  const element = overlay(canvas, make("div", { class: "panel" }, title, table,
    make("p", { class: "mute" }, make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " others · ",
      make("kbd", {}, "L"), " points · ", make("kbd", {}, "Del"), " to the trash · ",
      make("kbd", {}, "Esc"), " back")));
  let points = true, face = null, image = null;

  function draw() {
    if (!image) return;
    const scale = Math.max(1, Math.floor(Math.min(innerHeight * .84, innerWidth * .66) / image.width));
    canvas.width = canvas.height = image.width * scale;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (!points || !face) return;
    pen.fillStyle = "#39ff6a";
    pen.strokeStyle = "#000";
    for (const [x, y] of face.landmarks) {
      pen.beginPath();
      pen.arc((x + .5) * scale, (y + .5) * scale, Math.max(2, scale * 1.2), 0, 7);
      pen.fill();
      pen.stroke();
    }
  }

  async function show(shown) {
    name = shown;
    title.textContent = shown;
    table.replaceChildren();
    image = face = null;
    const img = new Image();
    img.src = picture(shown);
    try {
      const found = await data(shown);
      await img.decode();
      if (name !== shown) return;
      [image, face] = [img, found];
      for (const [key, value] of Object.entries(found.facts)) {
        table.append(make("tr", {}, make("td", {}, key), make("td", {}, value)));
      }
    } catch (error) {
      table.append(make("tr", {}, make("td", {}, error.message)));
    }
    draw();
    element.dataset.shown = shown;
  }

  listen(element, {
    ArrowRight: () => show(step(1)), ArrowLeft: () => show(step(-1)),
    ArrowDown: () => show(step(1)), ArrowUp: () => show(step(-1)),
    l: () => { points = !points; draw(); }, L: () => { points = !points; draw(); },
    Delete: async () => { const next = await remove(); if (next) show(next); else element.close(); },
  });
  show(name);
}

export async function lookAtSheets(side, by) {
  const img = make("img", { class: "sheet", alt: "contact sheets" });
  const what = make("div", { class: "panel" }, `finding the order by ${by} …`);
  const element = overlay(make("div", {}, what, img));
  listen(element, {});
  img.src = `api/faces/${side}/sheets/${encodeURIComponent(by)}`;
  try {
    await img.decode();
    what.textContent = `left: by name, as the files are now; right: by ${by}`;
  } catch {
    what.textContent = `no contact sheet: is there an aligned face of ${side}?`;
  }
}
