// Where a part of the face is, frame by frame: x and y as two curves, and what trembles. A click goes to the frame.

const SEEN = 150; // frames
const PARTS = ["eyes", "nose", "mouth", "chin"];
const TREMBLES = 1; // per cent of the face's width, off the middle of the frames before and after
const COLORS = ["#3d8bff", "#f0a030"]; // of x, of y
const EDGE = 14; // pixels above and below

export class Curves {
  constructor(canvas, state, go) {
    Object.assign(this, { canvas, state, rows: {}, part: "eyes" });
    canvas.addEventListener("click", (event) => {
      const { left, width } = canvas.getBoundingClientRect(), [first, count] = this.range();
      go(Math.min(first + count - 1, first + Math.floor((event.clientX - left) / width * count)));
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // [first frame, frames]: those around the present one.
  range() {
    const { count, frame } = this.state, seen = Math.min(SEEN, count);
    return [Math.max(0, Math.min(count - seen, Math.round(frame - seen / 2))), seen];
  }

  point(frame) {
    const row = this.rows[frame], at = 2 + 2 * PARTS.indexOf(this.part);
    return row && [row[at], row[at + 1]];
  }

  // How far off the middle of its neighbors the part is in `frame`, per cent of the face's width.
  off(frame) {
    const [a, b, c] = [-1, 0, 1].map((step) => this.point(frame + step));
    if (!a || !b || !c) return 0;
    return Math.hypot(b[0] - (a[0] + c[0]) / 2, b[1] - (a[1] + c[1]) / 2) / this.rows[frame][1] * 100;
  }

  // The frames in sight that tremble.
  trembling() {
    const [first, count] = this.range();
    return Array.from({ length: count }, (_, at) => first + at).filter((frame) => this.off(frame) > TREMBLES);
  }

  draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    if (!canvas.clientWidth) return;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const pen = canvas.getContext("2d"), [first, count] = this.range();
    pen.scale(ratio, ratio);
    const wide = canvas.clientWidth / Math.max(1, count), high = canvas.clientHeight - 2 * EDGE;
    const x = (frame) => (frame - first + .5) * wide;
    const color = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
    pen.fillStyle = color("--shade");
    pen.fillRect(x(this.state.frame) - wide / 2, 0, Math.max(2, wide), canvas.clientHeight);
    pen.fillStyle = "#e05a5a";
    for (const frame of this.trembling()) {
      const tall = Math.min(high, this.off(frame) / TREMBLES * 6);
      pen.fillRect(x(frame) - 1.5, canvas.clientHeight - tall, 3, tall);
    }
    for (const axis of [0, 1]) {
      const values = Array.from({ length: count }, (_, at) => this.point(first + at)?.[axis]);
      const known = values.filter((value) => value !== undefined);
      const low = Math.min(...known), span = Math.max(...known) - low || 1;
      pen.strokeStyle = COLORS[axis];
      pen.lineWidth = 1.5;
      pen.beginPath();
      values.forEach((value, at) => {
        if (value === undefined) return;
        const y = EDGE + (axis ? value - low : low + span - value) / span * high; // up is right, and up
        if (values[at - 1] === undefined) pen.moveTo(x(first + at), y); else pen.lineTo(x(first + at), y);
      });
      pen.stroke();
    }
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = color("--mute");
    pen.fillText(`${this.part}: x blue, y orange; red: ${TREMBLES} % of the face's width and more off the frames ` +
      "before and after", 8, 12);
  }

  next() {
    this.part = PARTS[(PARTS.indexOf(this.part) + 1) % PARTS.length];
    this.draw();
  }
}
