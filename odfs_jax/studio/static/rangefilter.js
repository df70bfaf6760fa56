// A histogram of numbers, one for each face, with two handles: which of them are let through.

const { make } = studio;
const BARS = 64, STEPS = 1000;

export class RangeFilter {
  // `changed` is called when another range is let through.
  constructor(changed) {
    this.changed = changed;
    this.values = [];
    this.unit = "";
    const handle = (at, name) => make("input", { type: "range", min: 0, max: STEPS, value: at,
      "aria-label": name, title: "arrows move it, double click opens it" });
    this.low = handle(0, "lowest value");
    this.high = handle(STEPS, "highest value");
    for (const [handle, open] of [[this.low, 0], [this.high, STEPS]]) {
      handle.addEventListener("input", () => this.moved(handle));
      handle.addEventListener("dblclick", () => { handle.value = open; this.moved(handle); });
    }
    this.canvas = make("canvas", { width: 632, height: 128, "aria-hidden": "true" });
    this.words = make("output", { class: "mute" });
    this.element = make("div", { class: "range", hidden: "" }, this.canvas,
      make("div", { class: "handles" }, this.low, this.high), this.words);
  }

  // Shows `values`, with all of them let through.
  show(values, unit) {
    this.values = values;
    this.unit = unit;
    this.element.hidden = !values.length;
    [this.least, this.most] = [values[0] ?? 0, values[0] ?? 0];
    for (const value of values) {
      if (value < this.least) this.least = value;
      if (value > this.most) this.most = value;
    }
    [this.low.value, this.high.value] = [0, STEPS];
    this.draw();
  }

  get open() { return Number(this.low.value) === 0 && Number(this.high.value) === STEPS; }

  // [lowest, highest] value that is let through; the outermost places let everything through.
  get range() {
    const at = (handle) => this.least + (this.most - this.least) * handle.value / STEPS;
    return [Number(this.low.value) === 0 ? -Infinity : at(this.low),
      Number(this.high.value) === STEPS ? Infinity : at(this.high)];
  }

  lets(value) {
    const [low, high] = this.range;
    return value >= low && value <= high;
  }

  moved(handle) {
    const [low, high] = [Number(this.low.value), Number(this.high.value)];
    if (low > high) handle.value = handle === this.low ? high : low;
    this.draw();
    this.changed();
  }

  draw() {
    const { canvas } = this, pen = canvas.getContext("2d");
    const color = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const counts = new Array(BARS).fill(0), span = this.most - this.least || 1;
    for (const value of this.values) {
      counts[Math.min(BARS - 1, Math.floor((value - this.least) / span * BARS))]++;
    }
    const tallest = Math.max(1, ...counts), wide = canvas.width / BARS;
    const [low, high] = this.range;
    counts.forEach((count, at) => {
      const middle = this.least + (at + .5) / BARS * span;
      pen.fillStyle = color(middle >= low && middle <= high ? "--accent" : "--line");
      const height = count ? Math.max(3, count / tallest * canvas.height) : 0;
      pen.fillRect(at * wide, canvas.height - height, wide - 2, height);
    });
    const shown = (value) => shortened(value) + this.unit;
    const seen = this.values.filter((value) => this.lets(value)).length;
    this.words.textContent = `${shown(Math.max(low, this.least))} to ` +
      `${shown(Math.min(high, this.most))}: ${seen} of ${this.values.length}`;
  }
}

// Three digits, which tell faces apart: 0.0123, 12.3, 1230.
export function shortened(value) {
  const size = Math.abs(value);
  return size >= 100 ? `${Math.round(value)}` : `${Number(value.toPrecision(3))}`;
}
