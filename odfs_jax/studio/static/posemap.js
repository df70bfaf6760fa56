// How many faces have which yaw (to the right) and pitch (up); a rectangle dragged on it filters.
// A second layer shows the poses of dst that src lacks.

const YAW = 90, PITCH = 60, BIN = 5; // degrees
const COLUMNS = 2 * YAW / BIN, ROWS = 2 * PITCH / BIN;
const EDGE = { left: 64, right: 12, top: 12, bottom: 52 }; // canvas pixels

// The bin of a pose, as one number; poses beyond the map are in the outermost bins.
function binOf([yaw, pitch]) {
  const column = Math.floor(Math.max(-YAW, Math.min(YAW - .01, yaw)) / BIN) + YAW / BIN;
  const row = Math.floor(Math.max(-PITCH, Math.min(PITCH - .01, pitch)) / BIN) + PITCH / BIN;
  return row * COLUMNS + column;
}

export class PoseMap {
  constructor(canvas, filtered) {
    this.canvas = canvas;
    this.filtered = filtered; // called with a test of [yaw, pitch, ...], or null for all
    this.poses = [];
    this.lacked = []; // of the second layer
    this.box = null; // {yaw: [low, high], pitch: [low, high]}
    canvas.tabIndex = 0;
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.from && this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("dblclick", () => this.clear());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  show(poses, lacked = []) {
    this.poses = poses;
    this.lacked = lacked;
    this.draw();
  }

  clear() {
    this.box = null;
    this.draw();
    this.filtered(null);
  }

  at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const x = (event.clientX - left) * this.canvas.width / width - EDGE.left;
    const y = (event.clientY - top) * this.canvas.height / height - EDGE.top;
    const w = this.canvas.width - EDGE.left - EDGE.right;
    const h = this.canvas.height - EDGE.top - EDGE.bottom;
    return [(x / w * 2 - 1) * YAW, (1 - y / h * 2) * PITCH];
  }

  pressed(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.from = this.at(event);
  }

  drag(event) {
    const to = this.at(event);
    const [yaw, pitch] = [0, 1].map((i) => [Math.min(this.from[i], to[i]), Math.max(this.from[i], to[i])]);
    if (yaw[1] - yaw[0] < 2 && pitch[1] - pitch[0] < 2) return;
    this.box = { yaw, pitch };
    this.draw();
  }

  released() {
    const dragged = this.from && this.box;
    this.from = null;
    if (dragged) this.filter();
  }

  // Arrows move the rectangle, with shift its right and upper edge; Escape takes it away.
  key(event) {
    const step = { ArrowLeft: [-BIN, 0], ArrowRight: [BIN, 0], ArrowUp: [0, BIN], ArrowDown: [0, -BIN] };
    if (event.key === "Escape" && this.box) this.clear();
    else if (!step[event.key]) return;
    else {
      const box = this.box || { yaw: [-15, 15], pitch: [-15, 15] };
      const moved = ([low, high], by) => event.shiftKey
        ? [low, Math.max(low + BIN, high + by)] : [low + by, high + by];
      this.box = { yaw: moved(box.yaw, step[event.key][0]), pitch: moved(box.pitch, step[event.key][1]) };
      this.filter();
    }
    event.preventDefault();
    event.stopPropagation();
  }

  filter() {
    const { yaw, pitch } = this.box;
    this.filtered(([y, p]) => y >= yaw[0] && y <= yaw[1] && p >= pitch[0] && p <= pitch[1]);
  }

  draw() {
    const { canvas, poses } = this, pen = canvas.getContext("2d");
    const color = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
    const w = canvas.width - EDGE.left - EDGE.right, h = canvas.height - EDGE.top - EDGE.bottom;
    const x = (yaw) => EDGE.left + (yaw / YAW + 1) / 2 * w;
    const y = (pitch) => EDGE.top + (1 - pitch / PITCH) / 2 * h;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = color("--shade");
    pen.fillRect(EDGE.left, EDGE.top, w, h);
    for (const [faces, hue] of [[poses, "--accent"], [this.lacked, "--warn"]]) {
      const counts = new Map();
      for (const pose of faces) counts.set(binOf(pose), (counts.get(binOf(pose)) || 0) + 1);
      const most = Math.log1p(Math.max(1, ...counts.values()));
      pen.fillStyle = color(hue);
      for (const [bin, count] of counts) {
        const column = bin % COLUMNS, row = (bin - column) / COLUMNS;
        pen.globalAlpha = hue === "--warn" ? 1 : .25 + .75 * Math.log1p(count) / most;
        pen.fillRect(EDGE.left + column * w / COLUMNS, EDGE.top + (ROWS - 1 - row) * h / ROWS,
          w / COLUMNS - 1, h / ROWS - 1);
      }
    }
    pen.globalAlpha = 1;
    this.axes(pen, color("--mute"), color("--line"), x, y);
    if (this.box) {
      const { yaw, pitch } = this.box;
      pen.strokeStyle = color("--text");
      pen.lineWidth = 3;
      pen.strokeRect(x(yaw[0]), y(pitch[1]), x(yaw[1]) - x(yaw[0]), y(pitch[0]) - y(pitch[1]));
    }
  }

  axes(pen, text, line, x, y) {
    pen.font = "24px system-ui, sans-serif"; // 12 on the screen
    pen.fillStyle = text;
    pen.strokeStyle = line;
    pen.lineWidth = 1;
    pen.textAlign = "center";
    for (let yaw = -YAW; yaw <= YAW; yaw += 45) {
      pen.fillText(`${yaw}`, Math.min(Math.max(x(yaw), EDGE.left + 14), this.canvas.width - 30),
        this.canvas.height - 28);
      pen.beginPath(); pen.moveTo(x(yaw), y(PITCH)); pen.lineTo(x(yaw), y(-PITCH)); pen.stroke();
    }
    pen.fillText("yaw°", x(22), this.canvas.height - 6);
    pen.textAlign = "right";
    for (let pitch = -PITCH; pitch <= PITCH; pitch += 30) {
      pen.fillText(`${pitch}`, EDGE.left - 8, Math.min(Math.max(y(pitch) + 8, 20), y(-PITCH)));
      pen.beginPath(); pen.moveTo(x(-YAW), y(pitch)); pen.lineTo(x(YAW), y(pitch)); pen.stroke();
    }
    pen.textAlign = "left";
    pen.fillText("pitch°", 2, this.canvas.height - 6);
  }
}
