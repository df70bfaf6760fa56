// The board enlarged: the frame zooms about the mouse and moves under it.
import { Board } from "./board.js";

const MOST = 24; // times larger than fitting
const LARGEST = 4096; // pixels of the canvas; beyond, the browser enlarges it

export class Closeup extends Board {
  zoom = 1;
  shift = [0, 0]; // screen pixels from the middle of the stage to that of the frame

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
}
