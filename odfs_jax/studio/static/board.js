// The frame with what is drawn on it, which zooms about the mouse and moves under it. Everything is in frame
// pixels; integers are pixel centers.

const MOST = 24; // times larger than fitting
const LARGEST = 4096; // pixels of the canvas; beyond, the browser enlarges it
const NEAR = 9; // screen pixels within which a point is under the mouse
const LINES = [[0, 17], [17, 22], [22, 27], [27, 31], [31, 36], [36, 42, 1], [42, 48, 1], [48, 60, 1],
  [60, 68, 1]]; // from, to, closed

export class Board {
  zoom = 1;
  shift = [0, 0]; // screen pixels from the middle of the stage to that of the frame

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
    const { width, height } = this.image;
    this.scale = Math.min(clientWidth / width, clientHeight / height) * this.zoom;
    const sides = [width * this.scale, height * this.scale];
    const ratio = Math.min(window.devicePixelRatio || 1, LARGEST / Math.max(...sides));
    const [w, h] = sides.map((side) => Math.round(side * ratio));
    if (this.canvas.width !== w || this.canvas.height !== h) Object.assign(this.canvas, { width: w, height: h });
    this.canvas.style.width = `${sides[0]}px`;
    this.canvas.style.height = `${sides[1]}px`;
    // As far as the frame fills the stage; where it is smaller it stays in the middle.
    this.shift = [clientWidth, clientHeight].map((room, at) => {
      const over = Math.max(0, (sides[at] - room) / 2);
      return Math.max(-over, Math.min(over, this.shift[at]));
    });
    this.canvas.style.transform = `translate(${this.shift[0]}px, ${this.shift[1]}px)`;
    this.draw();
  }

  // The point of the frame under the mouse stays under it.
  enlarge(factor, event) {
    const { left, top, width, height } = this.canvas.parentElement.getBoundingClientRect();
    const from = [event.clientX - left - width / 2, event.clientY - top - height / 2];
    const zoom = Math.max(1, Math.min(MOST, this.zoom * factor)), real = zoom / this.zoom;
    this.shift = this.shift.map((shift, at) => from[at] - (from[at] - shift) * real);
    this.zoom = zoom;
    this.fit();
  }

  move(x, y) {
    this.shift = [this.shift[0] + x, this.shift[1] + y];
    this.fit();
  }

  // So that `points` fill the most of the stage; all of the frame without them.
  showAll(points) {
    if (!this.image) return;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    const { width, height } = this.image;
    if (!points) { this.zoom = 1; this.shift = [0, 0]; return this.fit(); }
    const [low, high] = [Math.min, Math.max].map((pick) =>
      [0, 1].map((axis) => pick(...points.map((point) => point[axis]))));
    const fitting = Math.min(clientWidth / width, clientHeight / height);
    const wanted = Math.min(clientWidth / (high[0] - low[0] + 1), clientHeight / (high[1] - low[1] + 1)) * .7;
    this.zoom = Math.max(1, Math.min(MOST, wanted / fitting));
    this.shift = [width, height].map((side, axis) =>
      (side / 2 - (low[axis] + high[axis]) / 2 - .5) * fitting * this.zoom);
    this.fit();
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
