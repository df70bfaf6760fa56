// The frame with what is drawn on it. Everything is in frame pixels; integers are pixel centers.

const NEAR = 9; // screen pixels within which a point is under the mouse
const LINES = [[0, 17], [17, 22], [22, 27], [27, 31], [31, 36], [36, 42, 1], [42, 48, 1], [48, 60, 1],
  [60, 68, 1]]; // from, to, closed

export class Board {
  constructor(canvas, state) {
    this.canvas = canvas;
    this.state = state;
    this.image = null;
    this.size = 0; // of the square
    this.scale = 1;
    this.near = null;
    new ResizeObserver(() => this.fit()).observe(canvas.parentElement);
  }

  show(image, size) {
    this.image = image;
    if (!this.size) this.size = size || Math.min(image.width, image.height) * .4;
    this.near = null;
    this.fit();
  }

  fit() {
    if (!this.image) return;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    this.scale = Math.min(clientWidth / this.image.width, clientHeight / this.image.height);
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [this.image.width * this.scale, this.image.height * this.scale];
    this.canvas.style.width = `${w}px`;
    this.canvas.style.height = `${h}px`;
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(h * ratio);
    this.draw();
  }

  at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [(event.clientX - left) / this.scale - .5, (event.clientY - top) / this.scale - .5];
  }

  // The point of a pinned face under the mouse: {face, index}.
  pointAt([x, y]) {
    let best = null, least = NEAR / this.scale;
    for (const face of this.state.pinned) {
      face.points.forEach((point, index) => {
        const away = Math.hypot(point[0] - x, point[1] - y);
        if (away < least) { least = away; best = { face, index }; }
      });
    }
    return best;
  }

  isIn(face, [x, y]) {
    const xs = face.points.map((p) => p[0]), ys = face.points.map((p) => p[1]);
    return x > Math.min(...xs) && x < Math.max(...xs) && y > Math.min(...ys) && y < Math.max(...ys);
  }

  hover(at) {
    this.near = this.pointAt(at);
    this.canvas.style.cursor = this.near ? "grab" : "crosshair";
    this.draw();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  paint() {
    const { canvas, image, state } = this;
    if (!image) return;
    const pen = canvas.getContext("2d");
    const k = canvas.width / image.width;
    pen.resetTransform();
    pen.imageSmoothingEnabled = k < 4;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.setTransform(k, 0, 0, k, k / 2, k / 2);
    const px = (canvas.width / canvas.clientWidth || 1) / k; // a screen pixel
    for (const face of state.existing) this.face(pen, face.points, "#4da3ff", px);
    for (const face of state.pinned) this.face(pen, face.points, "#ffd23f", px, true);
    const square = state.following && state.square;
    if (!square) return;
    pen.lineWidth = 2 * px;
    pen.strokeStyle = "#ff5a5a";
    pen.strokeRect(square.x - square.size / 2, square.y - square.size / 2, square.size, square.size);
    if (!square.points) return;
    // Until the points of this place are there, the last ones go with the square.
    const [dx, dy] = [square.x - square.of.x, square.y - square.of.y];
    const fresh = !dx && !dy && square.size === square.of.size;
    pen.globalAlpha = fresh ? 1 : .45;
    this.face(pen, square.points.map(([x, y]) => [x + dx, y + dy]), "#39ff6a", px);
    pen.globalAlpha = 1;
  }

  face(pen, points, color, px, dots = false) {
    pen.strokeStyle = pen.fillStyle = color;
    pen.lineWidth = 1.2 * px;
    for (const [from, to, closed] of LINES) {
      pen.beginPath();
      for (let i = from; i < to; i++) pen.lineTo(...points[i]);
      if (closed) pen.closePath();
      pen.stroke();
    }
    points.forEach((point, index) => {
      const under = dots && this.near?.index === index && this.near.face.points === points;
      pen.beginPath();
      pen.arc(...point, (under ? 6 : dots ? 3 : 2) * px, 0, 7);
      pen.fill();
    });
  }
}
