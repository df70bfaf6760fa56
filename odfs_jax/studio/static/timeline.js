// All frames of the clip as a strip: what is known of each, and where one is. A click goes there.

const COLORS = { face: "#2f9e63", doubtful: "#e08a1e", none: "#c9463d", unknown: "#8894a5" };

export class Timeline {
  constructor(canvas, state, go) {
    Object.assign(this, { canvas, state });
    canvas.title = "green: a face, orange: doubtful, red: nobody found, gray: not looked at";
    canvas.addEventListener("click", (event) => {
      const { left, width } = canvas.getBoundingClientRect();
      go(Math.min(state.count - 1, Math.floor((event.clientX - left) / width * state.count)));
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  kind(number) {
    const note = this.state.noted[number];
    if (!note) return "unknown";
    const [faces, , doubtful] = note;
    if (doubtful) return faces ? "doubtful" : "none";
    return "face";
  }

  draw() {
    const { canvas, state } = this;
    canvas.width = canvas.clientWidth;
    const pen = canvas.getContext("2d"), wide = canvas.width / Math.max(1, state.count);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < state.count; i++) {
      pen.fillStyle = COLORS[this.kind(i)];
      pen.fillRect(i * wide, 10, Math.max(1, wide - (wide > 4)), 16);
    }
    pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--text");
    pen.fillRect(state.frame * wide - 1, 3, Math.max(3, wide), 30);
  }
}
