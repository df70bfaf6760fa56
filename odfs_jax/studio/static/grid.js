// A grid of thousands of pictures of which only those in sight are elements: the same few cells are
// moved and given other pictures as the user scrolls.

const GAP = 4; // pixels between cells
const AHEAD = 2; // rows beyond the edges that are there already

export class Grid {
  // `picture(index)` gives the address of a picture, `label(index)` its text.
  constructor(scroll, { picture, label, changed }) {
    this.scroll = scroll;
    this.picture = picture;
    this.label = label;
    this.changed = changed; // called when the selection changes
    this.items = []; // names in the order they are shown
    this.chosen = new Set(); // names
    this.cursor = 0; // index
    this.anchor = 0; // index where a range begins
    this.side = 112; // pixels of a cell
    this.cells = [];
    this.spacer = studio.make("div");
    scroll.append(this.spacer);
    scroll.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(scroll);
    scroll.addEventListener("pointerdown", (event) => this.pressed(event));
    scroll.addEventListener("dblclick", (event) => {
      const element = event.target.closest(".cell");
      if (element) this.opened(element.dataset.name);
    });
  }

  show(items) {
    this.items = items;
    this.index = new Map(items.map((name, index) => [name, index]));
    this.cursor = Math.min(this.cursor, Math.max(0, items.length - 1));
    this.layout();
  }

  layout() {
    const width = this.scroll.clientWidth - GAP;
    this.columns = Math.max(1, Math.floor(width / (this.side + GAP)));
    this.step = this.side + GAP;
    this.spacer.style.height = `${Math.ceil(this.items.length / this.columns) * this.step + GAP}px`;
    const rows = Math.ceil(this.scroll.clientHeight / this.step) + 1 + 2 * AHEAD;
    const wanted = Math.min(rows * this.columns, this.items.length);
    while (this.cells.length > wanted) this.cells.pop().element.remove();
    while (this.cells.length < wanted) this.cells.push(this.newCell());
    for (const cell of this.cells) {
      cell.index = -1;
      cell.element.style.width = cell.element.style.height = `${this.side}px`;
    }
    this.draw();
  }

  newCell() {
    const img = studio.make("img", { alt: "", draggable: "false", decoding: "async" });
    const text = studio.make("span");
    const element = studio.make("div", { class: "cell" }, img, text);
    img.addEventListener("error", () => { img.style.visibility = "hidden"; });
    img.addEventListener("load", () => { img.style.visibility = "visible"; });
    this.scroll.append(element);
    return { element, img, text, index: -1 };
  }

  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  // Each index in sight has the cell `index % cells`, so that few cells change on a scroll.
  draw() {
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / this.step) - AHEAD) * this.columns;
    const count = this.cells.length;
    for (let index = first; index < Math.min(first + count, this.items.length); index++) {
      const cell = this.cells[index % count];
      if (cell.index !== index) this.place(cell, index);
    }
    for (const cell of this.cells) {
      const seen = cell.index >= first && cell.index < first + count;
      cell.element.style.display = seen ? "" : "none";
    }
    this.mark();
  }

  place(cell, index) {
    cell.index = index;
    const x = GAP + (index % this.columns) * this.step;
    const y = GAP + Math.floor(index / this.columns) * this.step;
    cell.element.style.transform = `translate(${x}px, ${y}px)`;
    cell.img.style.visibility = "hidden";
    cell.img.src = this.picture(this.items[index]);
    cell.text.textContent = this.label(this.items[index]);
    cell.element.title = this.items[index];
    cell.element.dataset.name = this.items[index];
  }

  mark() {
    for (const { element, index } of this.cells) {
      element.classList.toggle("chosen", this.chosen.has(this.items[index]));
      element.classList.toggle("cursor", index === this.cursor);
    }
  }

  pressed(event) {
    const element = event.target.closest(".cell");
    if (!element || event.button !== 0) return;
    event.preventDefault();
    this.scroll.focus({ preventScroll: true });
    const cell = this.cells.find((c) => c.element === element);
    this.go(cell.index, event);
  }

  // Moves the cursor to `index`: alone it chooses that face, with shift a range, with ctrl one more.
  go(index, { shiftKey = false, ctrlKey = false, metaKey = false } = {}) {
    if (!this.items.length) return;
    index = Math.max(0, Math.min(this.items.length - 1, index));
    const name = this.items[index];
    if (shiftKey) {
      if (!ctrlKey) this.chosen.clear();
      const [low, high] = [Math.min(this.anchor, index), Math.max(this.anchor, index)];
      for (let i = low; i <= high; i++) this.chosen.add(this.items[i]);
    } else if (ctrlKey || metaKey) {
      if (!this.chosen.delete(name)) this.chosen.add(name);
      this.anchor = index;
    } else {
      this.chosen = new Set([name]);
      this.anchor = index;
    }
    this.cursor = index;
    this.into(index);
    this.mark();
    this.changed();
  }

  into(index) {
    const top = Math.floor(index / this.columns) * this.step;
    const bottom = top + this.step + GAP;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (bottom > this.scroll.scrollTop + this.scroll.clientHeight) {
      this.scroll.scrollTop = bottom - this.scroll.clientHeight;
    }
  }

  // True when the key was one of the grid's.
  key(event) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.step)) * this.columns;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
      PageDown: page, PageUp: -page, Home: -this.items.length, End: this.items.length,
    };
    if (event.key in steps) {
      this.go(this.cursor + steps[event.key], { shiftKey: event.shiftKey });
    } else if (event.key === " ") {
      this.go(this.cursor, { ctrlKey: true });
    } else if (event.key === "a" && event.ctrlKey) {
      this.chosen = new Set(this.items);
      this.mark();
      this.changed();
    } else return false;
    return true;
  }
}
