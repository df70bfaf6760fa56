// How many faces have which yaw (to the right) and pitch (up); a rectangle dragged on it filters.

const YAW = 90, PITCH = 60, BIN = 5; // degrees
const EDGE = { left: 64, right: 12, top: 12, bottom: 52 }; // canvas pixels

export class PoseMap {
  constructor(canvas, filtered) {
    this.canvas = canvas;
    this.filtered = filtered; // called with a test of [yaw, pitch, ...], or null for all
    this.poses = [];
    this.box = null; // {yaw: [low, high], pitch: [low, high]}
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.from && this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("dblclick", () => this.clear());
  }

  show(poses) {
    this.poses = poses;
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
    if (!dragged) return;
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
    const counts = new Map();
    for (const [yaw, pitch] of poses) {
      const c = Math.floor(Math.max(-YAW, Math.min(YAW - .01, yaw)) / BIN);
      const r = Math.floor(Math.max(-PITCH, Math.min(PITCH - .01, pitch)) / BIN);
      counts.set(`${c},${r}`, (counts.get(`${c},${r}`) || 0) + 1);
    }
    const most = Math.log1p(Math.max(1, ...counts.values()));
    pen.fillStyle = color("--accent");
    for (const [key, count] of counts) {
      const [c, r] = key.split(",").map(Number);
      pen.globalAlpha = .25 + .75 * Math.log1p(count) / most;
      pen.fillRect(x(c * BIN), y((r + 1) * BIN), w * BIN / YAW / 2 - 1, h * BIN / PITCH / 2 - 1);
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
    pen.font = "22px system-ui, sans-serif";
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
